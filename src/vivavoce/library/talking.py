"""Tasks, agents, and debates among them, from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vivavoce import plugins
from vivavoce.agents import Agent, open_agent
from vivavoce.agents.scripted import Respond, Scripted
from vivavoce.agents.weights import token_counter
from vivavoce.committee.prompting import prompt_set, prompts_of
from vivavoce.committee.reading import CountTokens
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.committee.wording import Talk, Wording
from vivavoce.config import AgentSpec
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph, Stored, read_graphs, write_graphs
from vivavoce.library.running import Run, here, plain
from vivavoce.library.tables import Records
from vivavoce.methods.budgets import require_room
from vivavoce.progress import bar
from vivavoce.protocols import open_protocol
from vivavoce.records import Problem, Sampling
from vivavoce.tasks import Task, open_task


@dataclass(frozen=True)
class Speaker:
    """An agent that can take part in debates. Made by :func:`agent`."""

    name: str
    agent: Agent
    backend: str
    options: Mapping[str, Any]
    sampling: Sampling
    samples: int = 1

    def member(self, role: Literal["teacher", "student"]) -> Member:
        """The agent as a member of a committee."""
        return Member(self.agent, role, self.sampling, self.samples)

    def __repr__(self) -> str:
        return f"agent {self.name} ({self.agent.identity})"


def task(name: str, **options: Any) -> Task:
    """A task by its name (``gsm8k``) or the path to its file, with its options: its questions and its grader.

    Raises RecipeError if there is no such task, or an option does not fit.
    """
    return open_task(name, options)


def agent(
    name: str,
    model: str | None = None,
    *,
    backend: str = "hf_local",
    respond: Respond | None = None,
    temperature: float = 0.3,
    top_p: float = 1.0,
    max_new_tokens: int = 1000,
    stop: Sequence[str] = (),
    logprobs: bool = False,
    samples: int = 1,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    **options: Any,
) -> Speaker:
    """An agent for debates: a local model, a model behind an endpoint, or a function.

    Args:
        name: Its name in graphs.
        model: A folder, a Hub id, ``schoolhouse:NAME``, or the endpoint's name of the model.
        backend: A file of ``vivavoce/agents`` (``openai_chat``), or a path to one.
        respond: A function of messages, sampling and seed that answers in place of a model.
        samples: The number of answers that it draws in round 0.
        options: Further options of the backend, such as ``base_url``.

    Nothing is loaded or sent before the agent is asked. Raises RecipeError, MissingKey or MissingDependency.
    """
    drawn = {"top_k": top_k, "repetition_penalty": repetition_penalty}
    sampling = Sampling(temperature, top_p, max_new_tokens, tuple(stop), logprobs, **drawn)
    if respond is not None:
        return Speaker(name, Scripted(name, respond), "scripted", {}, sampling, samples)
    backend_options = {**options, **({} if model is None else {"model": model})}
    return Speaker(name, open_agent(name, backend, backend_options), backend, backend_options, sampling, samples)


class Graphs(Records[Graph]):
    """Debates, one a question, with what is needed to make training rows of them."""

    def __init__(
        self, graphs: Sequence[Graph], wording: Wording, teachers: Sequence[Speaker], student: str, seed: int
    ) -> None:
        super().__init__(graphs)
        self.wording, self.teachers, self.student, self.seed = wording, list(teachers), student, seed

    def records(self) -> Iterable[dict[str, Any]]:
        """One row for each text, with its question, its prompt, and whether it was right."""
        for g in self:
            for n in g.nodes:
                prompt = g.messages_of(n) if n.prompt in g.prompts else []
                question = {"question": g.problem.question, "gold": g.problem.gold, "group": g.problem.group}
                yield {**question, **asdict(n), "prompt": "\n\n".join(m["content"] for m in prompt)}

    def save(self, path: str | Path) -> Path:
        """Write the graphs as JSON lines, one a question."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_graphs(path, self)
        return path

    def load(self, path: str | Path) -> Graphs:
        """Graphs that :meth:`save` wrote, for the same committee and task."""
        return Graphs(list(read_graphs(Path(path))), self.wording, self.teachers, self.student, self.seed)


@plain
async def debate(
    questions: Task | Sequence[Problem],
    teachers: Sequence[Speaker],
    student: Speaker | None = None,
    *,
    task: Task | None = None,
    protocol: str = "debate_reflect",
    limit: int | None = None,
    split: str = "train",
    run: Run | None = None,
    seed: int = 0,
    in_flight: int = 512,
    **options: Any,
) -> Graphs:
    """Let a committee debate questions; returns one graph for each question, in their order.

    Args:
        questions: A task, whose ``split`` is debated, or problems, which ``task`` grades.
        limit: The largest number of questions, taken from the first; None: all.
        protocol: A file of ``vivavoce/protocols``, or a path to one. It says which agent is asked what, in which order.
        run: The folder that keeps the calls; None: a temporary one.
        options: Keys of the protocol (``max_rounds=2``). ``prompts`` is the task's own set if there is one.

    Raises RecipeError for an unknown protocol or key, and if a local model's context has no room for questions and
    answers, before any agent is asked.
    """
    grader = task or (questions if not isinstance(questions, Sequence) else None)
    if grader is None:
        raise RecipeError("problems alone do not say how they are graded", "task", "give task=vv.task(…)")
    problems = questions if isinstance(questions, Sequence) else questions.problems(split)
    page = open_protocol(protocol)
    keys = {"prompts": _prompts(grader, page.Options.templates), **options, "protocol": protocol}
    talk: Talk = plugins.check(page.Options, keys, f"protocol {protocol}")
    prompts = prompt_set(talk.prompts)
    prompts.need(talk.asked_templates, tell=talk.tells)
    run, members = run or here(), [t.member("teacher") for t in teachers]
    if student is not None:
        members.append(student.member("student"))
    wording = Wording(talk, prompts, grader, _count(student))
    setting = Setting(page.run, tuple(members), talk, prompts, grader, run.journal, seed, "debate", wording.count)
    problems = list(problems)[:limit]
    for speaker in [*teachers, *([] if student is None else [student])]:
        spec = AgentSpec.model_validate({"name": speaker.name, "backend": speaker.backend, **speaker.options})
        require_room(
            spec, {"": problems}, wording.plain, f"{speaker.name}: max_new_tokens", speaker.sampling.max_new_tokens
        )
    with bar("questions", len(problems)) as advance:
        held: Stored = await hold_all(problems, setting, in_flight, lambda _: advance())
    return Graphs(held, wording, teachers, student.name if student else "student", seed)


@plain
async def review(
    questions: Task | Sequence[Problem], teachers: Sequence[Speaker], student: Speaker, **options: Any
) -> Graphs:
    """Let the student sit an exam, and the teachers explain its mistakes, answer and review: :func:`debate` with
    ``peer_review``.
    """
    return await debate.aio(questions, teachers, student, protocol="peer_review", **options)


def plain_wording(task: Task, prompts: str | None = None, word_limit: int = 500) -> Wording:
    """The wording of a task's questions outside a debate."""
    name = prompts or _prompts(task, Talk.templates)
    return Wording(Talk(prompts=name, word_limit=word_limit), prompt_set(name), task)


def _prompts(task: Task, templates: Sequence[str]) -> str:
    """The prompt set of the task, or of its exam if it is tested by another task."""
    return prompts_of(getattr(task, "exam", task).name, {}, templates)


def _count(student: Speaker | None) -> CountTokens:
    """A function that counts tokens of a text, with the student's tokenizer if it is a local model; otherwise four
    characters count as a token.
    """
    if student is not None and student.backend == "hf_local" and "model" in student.options:
        return token_counter(str(student.options["model"]))
    return lambda text: len(text) // 4


__all__ = ["Graphs", "Speaker", "agent", "debate", "plain_wording", "review", "task"]
