"""Plays environments of the package verifiers: a program that a bridge runs, under the Python that has the package.

The package itself runs the episode: its loop, its tools, its limits, its scores. It asks a model through an endpoint,
and that endpoint is here: what the package asks is what the agent sees next, what the agent does is the reply.
Environments of both kinds are played: modules with ``load_environment`` (verifiers up to 0.3), and tasksets of
``verifiers.v1`` (from 0.2 on). A task is ``NAME#SPLIT-NUMBER``.
"""

import asyncio
import concurrent.futures
import contextlib
import importlib
import itertools
import json
import os
import queue
import random
import sys
import threading
import typing
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "VIVAVOCE_NO_KEY"  # the variable that has the key of the endpoint here, which needs none


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the package prints is no answer
    os.environ[KEY] = "none"
    player = Player()
    for line in sys.stdin:
        ((what, value),) = json.loads(line).items()
        try:
            answer = player.answer(what, value)
        except Exception as error:  # noqa: BLE001  whatever the package raises is told
            answer = {"failed": error_text(error)}
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # ends threads that the package left running, too


def error_text(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Server(ThreadingHTTPServer):
    """An HTTP server of threads that end with the process."""

    daemon_threads = True
    request_queue_size = 1024  # by default 5: of connections that come at once some then wait for two minutes


class Player:
    """Serves the endpoint and runs the package's episodes, in threads of their own."""

    def __init__(self):
        self.episodes: dict[str, Episode] = {}
        self.options, self.world = {}, typing.cast("typing.Any", None)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server = Server(("127.0.0.1", 0), handler(self.episodes))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, what, value):
        if what == "begin":
            self.options = value
            self.world = with_loader(value) or self.run(Taskset.opened(value))
            return {"ready": True}
        if what == "count":
            return {split: self.world.count(split, value) for split in ("train", "test")}
        if what == "reset":
            name, task, _ = value
            self.end(name)
            split, _, number = task.rpartition("#")[2].partition("-")
            episode = self.episodes[name] = Episode(self.options["time_s"])
            address = f"http://127.0.0.1:{self.server.server_address[1]}/{name}/v1"
            play = self.played(episode, split, int(number), address, zlib.crc32(task.encode()))
            episode.run = asyncio.run_coroutine_threadsafe(play, self.loop)
            return episode.next()
        if what == "step":
            name, text, calls = value
            episode = self.episodes[name]
            episode.actions.put((text, calls))
            return episode.next()
        self.end(value)
        return {"closed": True}

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def end(self, name):
        episode = self.episodes.pop(name, None)
        if episode is not None:
            episode.actions.put(None)
            episode.run.cancel()

    async def played(self, episode, split, number, address, seed):
        random.seed(seed)
        try:
            episode.events.put(("end", await self.world.play(split, number, address)))
        except Exception as error:  # noqa: BLE001  whatever the package raises is told
            episode.events.put(("failed", error_text(error)))


class Episode:
    """The package's requests and the agent's actions, in turn."""

    def __init__(self, time_s):
        self.time_s, self.run = time_s, typing.cast("concurrent.futures.Future[None]", None)
        self.events, self.actions = queue.Queue(), queue.Queue()
        self.messages, self.tools, self.calls = [], [], {}

    def next(self):
        """The next messages for the agent, which the package added since the last request, or the end."""
        try:
            kind, what = self.events.get(timeout=self.time_s)
        except queue.Empty:
            raise TimeoutError(f"the environment said nothing for {self.time_s} s") from None
        if kind == "failed":
            raise RuntimeError(what)
        if kind == "end":
            return {"messages": [], "done": True, "score": what}
        messages = [plain(message) for message in what["messages"]]
        seen = len(self.messages)
        if messages[:seen] != self.messages:
            raise RuntimeError("the environment changes what was said before, so its conversation is no episode")
        self.messages = messages
        self.tools = [tool["function"] for tool in what.get("tools") or ()]
        new = messages[seen:]
        if seen:
            if not new or new[0]["role"] != "assistant":
                raise RuntimeError("more than one conversation asks the same model; give the others one of their own")
            new = new[1:]
        return {"messages": new, "done": False, "score": None, "tools": self.tools}


def plain(message):
    content = message.get("content") or ""
    if not isinstance(content, str):
        if any(part.get("type") not in ("text", "input_text") for part in content):
            raise RuntimeError("the environment shows pictures or sounds, which agents here do not read")
        content = "\n".join(part.get("text", "") for part in content)
    return {"role": message["role"], "content": content}


def handler(episodes):
    numbers = itertools.count()

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # an answer is two writes, of which the second would wait 40 ms

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            episode = episodes.get(self.path.split("/")[1])
            action = None
            if episode is not None:
                episode.events.put(("asked", body))
                action = episode.actions.get()
            if action is None:
                return self.reply(410, {"error": {"message": "the episode is over"}})
            text, calls = action
            message = {"role": "assistant", "content": text}
            if calls:
                message["tool_calls"] = [
                    {
                        "id": f"call_{next(numbers)}",
                        "type": "function",
                        "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
                    }
                    for name, arguments in calls
                ]
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            head = {"id": f"c{next(numbers)}", "object": "chat.completion", "created": 0, "model": "agent"}
            return self.reply(200, {**head, "choices": [choice], "usage": usage})

        def reply(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the package may have given up
                self.wfile.write(data)

        def log_message(self, format, *args):
            pass

    return Endpoint


def with_loader(options):
    """The environment if its package has a loader; else None. In this thread: the package sets up signals."""
    import verifiers  # pyright: ignore[reportMissingImports]  (it runs where the package is)

    if hasattr(verifiers, "load_environment"):
        module = options["environment"].rsplit("/", 1)[-1].split("@", 1)[0].replace("-", "_")
        with contextlib.suppress(ModuleNotFoundError):
            if hasattr(importlib.import_module(module), "load_environment"):
                return WithLoader(options, verifiers)
    return None


class WithLoader:
    """A module with ``load_environment``."""

    def __init__(self, options, verifiers):
        self.environment = verifiers.load_environment(options["environment"], **options["args"])
        most = getattr(self.environment, "max_turns", None)
        if most is not None:
            self.environment.max_turns = min(most, options["turns"]) if most > 0 else options["turns"]
        test = self.environment.get_eval_dataset()  # that of training if there is none
        train = self.environment.get_dataset() if options["train"] else test
        first = min(options["test"], len(test)) if train is test else 0
        self.parts = {"test": (test, 0, len(test)), "train": (train, first, len(train))}

    def count(self, split, wanted):
        _, first, last = self.parts[split]
        return max(min(wanted[split], last - first), 0)

    async def play(self, split, number, address):
        from verifiers.types import ClientConfig  # pyright: ignore[reportMissingImports]  (it runs where the package is)

        rows, first, _ = self.parts[split]
        client = ClientConfig(api_base_url=address, api_key_var=KEY, max_retries=0)
        row = {"example_id": first + number, **rows[first + number]}
        done = await self.environment.run_rollout(row, client, "agent", {})
        if error := done.get("error"):
            raise RuntimeError(str(error))
        return float(done["reward"])


class Taskset:
    """A taskset of ``verifiers.v1``, in its environment. ``args`` are the environment's configuration.

    Agents that name no harness talk through :mod:`verifiers_harness`, and run on this machine.
    """

    def __init__(self, environment, options):
        from verifiers.v1.configs.agent import agent_config_fields  # pyright: ignore[reportMissingImports]

        self.environment, self.serving = environment, typing.cast("asyncio.Future[None]", None)
        seats = [name for name, spec in agent_config_fields(environment.config).items() if spec.client is None]
        if len(seats) != 1:
            named = ", ".join(seats) or "none"
            raise ValueError(f"one agent plays, and {named} are free; give the others `client` and `model` in args")
        wanted = options["test"] + options["train"]
        self.tasks = list(itertools.islice(environment.taskset, wanted))
        self.first = {"test": 0, "train": min(options["test"], len(self.tasks))}

    @classmethod
    async def opened(cls, options):
        from verifiers.v1.configs.agent import agent_config_fields  # pyright: ignore[reportMissingImports]
        from verifiers.v1.configs.harness import HarnessConfig  # pyright: ignore[reportMissingImports]
        from verifiers.v1.runtimes import SubprocessConfig  # pyright: ignore[reportMissingImports]
        from verifiers.v1.utils import loaders  # pyright: ignore[reportMissingImports]

        args = dict(options["args"])
        args["taskset"] = {**args.get("taskset", {}), "id": options["environment"]}
        config = loaders.resolve_env_config(args)
        changed = {}
        for name, spec in agent_config_fields(config).items():
            settings = args.get(name, {})
            own = {} if "runtime" in settings else {"runtime": SubprocessConfig()}
            if spec.harness is None:
                own["harness"] = HarnessConfig(id="verifiers_harness")
            if spec.max_turns is None:
                own["max_turns"] = options["turns"]
            changed[name] = spec.model_copy(update=own)
        taskset = cls(loaders.load_environment(config.model_copy(update=changed)), options)
        ready = asyncio.Event()
        taskset.serving = asyncio.ensure_future(taskset.serve(ready))
        waiting = asyncio.ensure_future(ready.wait())
        done, _ = await asyncio.wait((taskset.serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
        return taskset

    async def serve(self, ready):
        async with self.environment.serving():
            ready.set()
            await asyncio.Future()

    def count(self, split, wanted):
        return max(min(wanted[split], len(self.tasks) - self.first[split]), 0)

    async def play(self, split, number, address):
        from verifiers.v1.clients import EvalClientConfig, ModelContext  # pyright: ignore[reportMissingImports]

        context = ModelContext(model="agent", client=EvalClientConfig(base_url=address, api_key_var=KEY))
        episode = await self.environment.run_episode(self.tasks[self.first[split] + number], context)
        errors = [error for one in (episode, *episode.traces) for error in one.errors]
        if errors:
            raise RuntimeError(str(errors[0]))
        played = [trace for trace in episode.traces if trace.rewards]
        return float(sum(trace.reward for trace in played)) if played else None


if __name__ == "__main__":
    main()
