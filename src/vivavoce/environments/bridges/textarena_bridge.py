"""Plays games of textarena for one player: a program that a bridge runs, under the Python that has the package.

Games draw from Python's global random numbers. Each episode has its own: they are put in place around each move, so
that episodes side by side do not disturb each other, and equal tasks and actions give equal games.
"""

import contextlib
import io
import json
import os
import random
import sys
import zlib


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the package prints is no answer
    episodes: dict[str, Game] = {}
    for line in sys.stdin:
        ((what, value),) = json.loads(line).items()
        try:
            reply = answer(what, value, episodes)
        except Exception as error:  # noqa: BLE001  whatever the package raises is told
            reply = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(reply), file=answers, flush=True)


def answer(what, value, episodes):
    if what == "begin":
        with contextlib.redirect_stdout(io.StringIO()):
            import textarena  # noqa: F401
        return {"ready": True}
    if what == "reset":
        episode, task, _ = value
        episodes[episode] = game = Game(task)
        return game.observed()
    if what == "step":
        episode, text = value
        return episodes[episode].moved(text)
    episodes.pop(value, None)
    return {"closed": True}


class Game:
    """One episode. A task is ``GAME#NUMBER``: the number decides how the game is dealt."""

    def __init__(self, task):
        import textarena
        from textarena.envs.registration import ENV_REGISTRY

        name, _, _ = task.rpartition("#")
        self.env = textarena.make(env_id=f"{name}-raw" if f"{name}-raw" in ENV_REGISTRY else name)
        self.random = random.Random(zlib.crc32(task.encode())).getstate()
        self.score = None
        with self.own_random():
            self.env.reset(num_players=1, seed=zlib.crc32(f"{task} deal".encode()))
        self.done = False

    @contextlib.contextmanager
    def own_random(self):
        before = random.getstate()
        random.setstate(self.random)
        try:
            yield
        finally:
            self.random = random.getstate()
            random.setstate(before)

    def moved(self, text):
        with self.own_random():
            self.done, _ = self.env.step(text)
            if self.done:
                rewards, _ = self.env.close()
                self.score = float(rewards.get(0, 0)) if rewards else 0.0
        return self.observed()

    def observed(self):
        """The texts that the player has not seen yet, without its own."""
        with self.own_random():
            _, seen = self.env.get_observation() if not self.done else (0, self.env.state.observations.get(0, []))
        if isinstance(seen, str):
            text = seen
        else:
            text = "\n".join(message for sender, message, kind in seen if kind.name != "PLAYER_ACTION")
        messages = [{"role": "user", "content": text}] if text.strip() else []
        return {"messages": messages, "done": self.done, "score": self.score}


if __name__ == "__main__":
    main()
