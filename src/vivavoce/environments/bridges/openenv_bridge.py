"""Acts in an OpenEnv server: a program that a bridge runs, under the Python that has the package openenv.

Each episode is a session of its own over the server's WebSocket, so the server has to allow as many as there are
episodes at once (the recipe's ``in_flight``). A task is ``NAME#SEED``, and the seed goes into the server's reset.
"""

import json
import os
import sys
import time

WAIT_S = 5.0


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the package prints is no answer
    server = Server()
    for line in sys.stdin:
        ((what, value),) = json.loads(line).items()
        try:
            answer = server.answer(what, value)
        except Exception as error:  # noqa: BLE001  whatever the package raises is told
            answer = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)


class Server:
    def __init__(self):
        self.options, self.episodes, self.totals = {}, {}, {}

    def answer(self, what, value):
        if what == "begin":
            import openenv.core  # noqa: F401  # pyright: ignore[reportMissingImports]  (it runs where OpenEnv is)

            self.options = value
            return {"ready": True}
        if what == "reset":
            episode, task, _ = value
            self.end(episode)
            self.totals[episode] = 0.0
            self.episodes[episode], first = self.begun(int(task.rpartition("#")[2]))
            return self.observed(episode, first)
        if what == "step":
            episode, text = value
            action = {**self.options["action"], self.options["action_field"]: text}
            return self.observed(episode, self.episodes[episode].step(action))
        self.end(value)
        return {"closed": True}

    def begun(self, seed):
        """A client whose session has begun. A server lets go of an ended session only after a while."""
        from openenv.core import GenericEnvClient  # pyright: ignore[reportMissingImports]

        until = time.monotonic() + WAIT_S
        while True:
            client = GenericEnvClient(base_url=self.options["url"]).sync()
            try:
                client.__enter__()
                return client, client.reset(seed=seed)
            except Exception as error:  # the package has no class that says which
                client.__exit__(None, None, None)
                if "CAPACITY_REACHED" not in str(error):
                    raise
                if time.monotonic() > until:
                    raise RuntimeError(
                        f"the server has room for no further session, with {len(self.episodes)} open here: set the "
                        "recipe's in_flight to what it allows (max_concurrent_envs), or start it with more"
                    ) from None
            time.sleep(0.1)

    def end(self, episode):
        client = self.episodes.pop(episode, None)
        if client is not None:
            client.__exit__(None, None, None)

    def observed(self, episode, result):
        self.totals[episode] += float(result.reward or 0.0)
        seen, field = result.observation, self.options["observation_field"]
        if field and field not in seen:
            raise KeyError(f"the observation has no field {field!r}; it has {', '.join(seen)}")
        shown = seen[field] if field else {k: v for k, v in seen.items() if k not in ("done", "reward", "metadata")}
        text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
        score = None
        if self.options["score"] == "last":
            score = float(result.reward or 0.0)
        elif result.done or self.options["score"] == "sum":
            score = self.totals[episode]
        if result.done:
            self.end(episode)
        messages = [{"role": "user", "content": text}] if text.strip() else []
        return {"messages": messages, "done": bool(result.done), "score": score}


if __name__ == "__main__":
    main()
