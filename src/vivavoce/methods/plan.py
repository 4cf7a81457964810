"""The plan of a run, counted without asking: calls, tokens and money by stage and agent.

Bounds, and the expected values between them, come from rehearsing the protocol (:mod:`vivavoce.committee.rehearsal`).
Expected values are measured if a journal is at hand: of an earlier run, of a pilot, or of this run so far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import fmean
from typing import Any, Literal, NamedTuple

from vivavoce.agents.budget import FREE
from vivavoce.committee.judges import KIND, judge_prompt, open_prompts
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.rehearsal import (
    JUDGED,
    Absent,
    Expected,
    Planned,
    Span,
    Spend,
    bounds,
    rehearse,
    sketch,
    words,
)
from vivavoce.committee.table import Member, Setting
from vivavoce.committee.wording import Talk, Wording
from vivavoce.config import AgentSpec, Recipe
from vivavoce.errors import DataError
from vivavoce.graph import Graph
from vivavoce.methods.episode_lengths import EpisodeLengths, episode_lengths
from vivavoce.methods.measured import Measured
from vivavoce.methods.opd_arms import DebateChoices
from vivavoce.methods.review_arms import ReviewArm
from vivavoce.methods.token_count import TokenCount
from vivavoce.protocols import open_protocol
from vivavoce.protocols.peer_review import Options as ReviewOptions
from vivavoce.records import Message, Problem, Usage
from vivavoce.tasks import Task, open_task
from vivavoce.tasks.acting import Acting

_SAMPLE = 50
_REHEARSED = 200
"""Debates in a rehearsal, over the questions of the sample: a share of right answers needs as many to come out."""
_TALKED = 40
"""Debates in which every reply has its greatest length: the longest call is that of the usual split of right and wrong.
"""
_SHARE = 0.4
"""The share of ``max_new_tokens`` that an unknown reply takes."""
_TURNS = 8
"""The turns of an unknown episode."""
_PART = 250
"""Tokens of the rules for a model that plays a person."""
_LATER_EXAM = 0.5
"""The share of a taught student's mistakes that it was not told of before."""


def plan_debate(
    recipe: Recipe,
    held: Mapping[str, Talk],
    attempts: int,
    students: int,
    looked: Mapping[str, Talk] = {},
    measured: Measured | None = None,
) -> list[Planned]:
    """Calls of debates on the training questions, of the student's later attempts, and of all tests.

    ``held`` are the rules of the debates by stage: first answers are the same in all of them and are paid once.
    ``students`` is how many models sit the test, the untrained one first. ``looked`` are the rules of second looks, by
    the name of the arm that they make.
    """
    options = recipe.rules
    plan = _Plan(recipe, options, measured)
    for i, (stage, rules) in enumerate(held.items()):
        rehearsed = plan.rehearse_debate(rules, recipe.student)
        for spec, _ in plan.everybody:
            plan.questions(f"debate:{stage}", spec, plan.train, rehearsed, free=spec.samples if i else 0)
        plan.add_verdicts(f"debate:{stage}", plan.train, rehearsed)
    plan.calls("attempts", recipe.student, attempts * plan.train * len(recipe.seeds), taught=1)
    plan.tests(students)
    for name, rules in looked.items():
        rehearsed = plan.rehearse_debate(rules, recipe.student)
        for spec, _ in plan.everybody:
            plan.questions(f"look:{name}", spec, plan.test * len(recipe.seeds), rehearsed)
        plan.add_verdicts(f"look:{name}", plan.test * len(recipe.seeds), rehearsed)
    plan.votes()
    return plan.made


def plan_states(
    recipe: Recipe,
    options: Talk,
    tables: Sequence[DebateChoices],
    students: int,
    measured: Measured | None = None,
    attempts: int = 0,
) -> list[Planned]:
    """Calls of debates on the student's states, held at each table, and of all tests.

    First turns are the same at every table at which the same is told, and are paid once. A debate on what the student
    did is held for each training seed. Before training the student gives ``attempts`` answers to every question, for
    pairs. Scoring the student's tokens is no call.
    """
    plan = _Plan(recipe, options, measured)
    names = [t.name for t in recipe.teachers]
    paid = set[tuple[str, bool]]()
    for table in tables:
        stage, debaters = table.stage("debate:states"), list(table.debaters or names)
        student = recipe.student if table.sees_action else None
        rehearsed = plan.rehearse_debate(table.rules(options), student, debaters)
        for held in [f"{stage}-{seed}" for seed in recipe.seeds] if student else [stage]:
            for spec in (t for t in recipe.teachers if t.name in debaters):
                free = spec.samples if (spec.name, table.sees_gold) in paid and not student else 0
                plan.questions(held, spec, plan.train, rehearsed, free=free)
                paid |= set() if student else {(spec.name, table.sees_gold)}
            if student:
                plan.questions(held, student, plan.train, rehearsed)
            plan.add_verdicts(held, plan.train, rehearsed)
    plan.calls("attempts", recipe.student, attempts * plan.train * len(recipe.seeds), taught=1)
    plan.tests(students)
    plan.votes()
    return plan.made


def plan_actions(
    recipe: Recipe,
    options: Talk,
    episodes: int,
    debated: int,
    students: int,
    turns: float | None,
    user: AgentSpec | None = None,
    measured: Measured | None = None,
) -> list[Planned]:
    """Calls of ``episodes`` that students play in training, of debates on the states of ``debated`` of them, and of
    ``students`` that are tested; of ``user``, the model that plays a person in them. Episodes take ``turns`` (None: as
    many as those that the environment shows), and at most as many as it allows.

    States that several students come to are paid once. So the least is a few debates, and the expected number is known
    only from the journal, after episodes were played.
    """
    plan = _Plan(recipe, options, measured)
    rehearsed = plan.rehearse_debate(options, None)
    spec, most = recipe.student, plan.task.environment().limits.turns if isinstance(plan.task, Acting) else 1
    new = plan.tokens(spec.name, "act")
    turns = min(turns or (plan.shown.turns if plan.shown else _TURNS), most)
    seen, seen_most = (plan.shown.seen, plan.shown.seen_most) if plan.shown else (new, spec.max_new_tokens)
    plan.episodes("act", spec, episodes + students * plan.test, turns, most, (seen, seen_most))
    if user:
        plan.person(user, episodes + students * plan.test, turns, most)
    for teacher in recipe.teachers:
        once, (least, furthest) = rehearsed.usual.get(teacher.name, Spend()), rehearsed.bounds[teacher.name]
        grown = (turns - 1) / 2 * (new + seen)  # what was done and seen by then, on average
        each = Spend(once.calls * turns, (once.prompt + once.calls * grown) * turns, once.completion * turns)
        low = Spend(least.calls, least.calls * plan.plain, least.calls)
        acted = most * (spec.max_new_tokens + seen_most)  # before the last state
        high = Spend(
            furthest.calls * most, (furthest.prompt + furthest.calls * acted) * most, furthest.completion * most
        )
        plan.add("debate:states", teacher, debated, low, each, high)
    return plan.made


def plan_review(
    recipe: Recipe,
    options: ReviewOptions,
    arms: Sequence[ReviewArm],
    measured: Measured | None = None,
    recorded: bool = False,
) -> list[Planned]:
    """Calls of an exam with feedback, rationales and reviews, of later exams, and of all tests.

    The number of mistakes is what the exam will show: at least none; at most every question, with every unreadable
    score asked for again. If all that is ``recorded``, only the tests are asked.
    """
    plan = _Plan(recipe, options, measured)
    students = 1 + sum(1 if arm.shots else len(recipe.seeds) for arm in arms)
    if recorded:
        plan.tests(students)
        return plan.made
    later = sum(arm.exams - 1 for arm in arms) * len(recipe.seeds)
    rehearsed = plan.rehearse_debate(options, recipe.student)
    for spec in (recipe.student, *recipe.teachers):
        plan.questions("review:train", spec, plan.train, rehearsed)
    plan.add_verdicts("review:train", plan.train, rehearsed)
    if later:  # rationales and reviews are there already, but for questions that were right before
        wrong, commenters = (
            1 - recipe.student.expected_right,
            options.holders("commenters", [t.name for t in recipe.teachers]),
        )
        for spec in recipe.teachers:
            length, explains = plan.tokens(spec.name, "critique"), options.feedback and spec.name in commenters
            calls = explains * wrong * _LATER_EXAM
            new = Spend(calls, calls * (plan.plain + length), calls * length)
            most = {spec.name: (Spend(), rehearsed.bounds[spec.name][1])}
            plan.questions("review, later exams", spec, plan.train * later, Rehearsed({spec.name: new}, most))
    plan.calls("review, later exams", recipe.student, recipe.student.samples * plan.train * later, taught=1)
    plan.tests(students)
    return plan.made


@dataclass(frozen=True)
class Rehearsed:
    """The calls and tokens of each agent for one question: expected, least and most."""

    usual: Mapping[str, Spend]
    bounds: Mapping[str, tuple[Spend, Spend]]


class Lengths(NamedTuple):
    """Prompt tokens of an agent's longest plain question, and of its longest call if every reply has its greatest
    length.
    """

    plain: int
    longest: int


def longest_calls(recipe: Recipe) -> dict[str, Lengths]:
    """The longest prompts of each agent, by its name."""
    return {name: Lengths(*lengths) for name, lengths in _Plan(recipe, recipe.rules, None).longest().items()}


def sketch_question(recipe: Recipe, question: str = "", split: str = "train") -> tuple[Graph, list[Message]]:
    """One question's debate without calls, by the recipe's protocol, and the prompt of the question in tests.

    ``question`` is an id, or the number of a question counted from 1; the first one if it is empty. If agents act in an
    environment, the state is the first of an episode, if the environment shows one. Raises DataError if there is no
    such question.
    """
    plan = _Plan(recipe, recipe.rules, None)
    problems = plan.task.problems(split)
    matches = [p for i, p in enumerate(problems, 1) if question in (p.id, str(i))] if question else problems[:1]
    if not matches:
        do = f"give an id, or a number from 1 to {len(problems)}; the first id is {problems[0].id}" if problems else ""
        raise DataError(f"no {split} question `{question}`", plan.task.name, do)
    problem = matches[0]
    if plan.shown and not problem.history:
        first = plan.shown.longest[:2]
        problem = replace(problem, question=first[-1]["content"], history=tuple(first))
    graph = asyncio.run(sketch(plan.setting(plan.options, recipe.student), problem, lambda *_: 0))
    return graph, Wording(plan.options, plan.prompts, plan.task).plain(problem)


class _Plan:
    """A plan in the making."""

    def __init__(self, recipe: Recipe, options: Talk, measured: Measured | None) -> None:
        self.recipe, self.options, self.measured = recipe, options, measured or Measured([])
        self.made = list[Planned]()
        self.task = open_task(recipe.task.name, recipe.task.options)
        self._problems = recipe.questions(self.task)
        self.train, self.test = len(self._problems), len(self.task.problems("test"))
        self._counts = {spec.name: TokenCount(spec) for spec in recipe.agents}
        self.prompts = prompt_set(options.prompts)
        self.plain = self._plain(recipe.student, self.task, self._problems)

    @property
    def everybody(self) -> list[tuple[AgentSpec, Literal["teacher", "student"]]]:
        return [*((t, "teacher") for t in self.recipe.teachers), (self.recipe.student, "student")]

    # --- what to expect

    def tokens(self, name: str, kind: str) -> int:
        """Tokens of a reply: measured, else as the recipe says, else a share of what is allowed."""
        if (known := self.measured.length(name, kind)) is not None:
            return known
        spec = next(s for s in self.recipe.agents if s.name == name)
        return spec.expected_tokens or max(1, round(_SHARE * spec.max_new_tokens))

    def _student_tokens(self) -> int:
        """Tokens of an answer of a student that has learned from the teachers: it writes as they do."""
        writers = self.recipe.teachers or [self.recipe.student]
        return round(fmean(self.tokens(t.name, "answer") for t in writers))

    @property
    def _expected(self) -> Expected:
        return Expected(self.tokens, {s.name: s.expected_right for s, _ in self.everybody})

    def _count(self, name: str, messages: Sequence[Message]) -> int:
        contents = [words(m["content"]) for m in messages]
        plain: list[Message] = [{**m, "content": text} for m, (text, _) in zip(messages, contents, strict=True)]
        return self._counts[name].messages(plain) + sum(n for _, n in contents)

    def _count_text(self, text: str) -> int:
        plain, made_up = words(text)
        return self._counts[self.recipe.student.name].text(plain) + made_up

    def _plain(self, spec: AgentSpec, task: Task, problems: Sequence[Problem]) -> float:
        """Prompt tokens of a plain question, on average."""
        wording = Wording(self.options, self.prompts, task)
        shown = [wording.plain(p) for p in problems[:_SAMPLE]]
        return fmean(self._counts[spec.name].messages(m) for m in shown) if shown else 0

    def rehearse_debate(
        self, options: Talk, student: AgentSpec | None, teachers: Sequence[str] | None = None
    ) -> Rehearsed:
        """The calls and tokens of each agent in the debate of one question; ``teachers`` are some of the teachers, None
        all.
        """
        setting = self.setting(options, student, teachers)
        longest = max(self._repeat(_SAMPLE), key=lambda p: len(p.question), default=Problem("none", "", ""))
        most = {s.name: s.max_new_tokens for s, _ in self.everybody}
        talkative = Expected(lambda name, kind: most[name], dict.fromkeys(most, 0.5))

        async def both() -> Rehearsed:
            usual = await rehearse(setting, self._repeat(_REHEARSED), self._expected, self._count)
            return Rehearsed(usual, await bounds(setting, longest, talkative, self._count))

        return asyncio.run(both())

    def setting(self, options: Talk, student: AgentSpec | None, teachers: Sequence[str] | None = None) -> Setting:
        members = [self._member(t, "teacher") for t in self.recipe.teachers if teachers is None or t.name in teachers]
        members += [self._member(student, "student")] if student else []
        # what stand-ins say differs by its length alone, and is measured again and again to be cut
        count = lru_cache(1 << 12)(self._count_text) if options.context_budget else None
        page = open_protocol(options.protocol).run
        return Setting(page, tuple(members), options, self.prompts, self.task, _NOWHERE, self.recipe.seed, count=count)

    def _member(self, spec: AgentSpec, role: Literal["teacher", "student"]) -> Member:
        return Member(Absent(spec.name), role, spec.sampling(), spec.samples, spec.system)

    def _repeat(self, enough: int) -> list[Problem]:
        """The questions of the sample, repeated until there are enough."""
        shown = self._problems[:_SAMPLE]
        often = enough // max(1, len(shown))
        return [Problem(f"{p.id} {i}", p.question, p.gold, history=p.history) for i in range(often) for p in shown]

    def longest(self) -> dict[str, tuple[int, int]]:
        """Prompt tokens of each agent's longest plain question, and of its longest call if every reply has its greatest
        length.
        """
        most, earlier = {s.name: s.max_new_tokens for s, _ in self.everybody}, 0
        if self.shown:  # the last state of the longest episode, with every action of its length at most
            earlier = self.shown.last_turn * self.recipe.student.max_new_tokens
            last = self.shown.longest
            self._problems = [Problem("longest", last[-1]["content"], "", history=last)]
        self._problems = sorted(self._problems, key=lambda p: -len(p.question))[:5]
        lengths = {name: (n := self._longest_plain(name), n + earlier) for name in most}

        def count(name: str, messages: Sequence[Message]) -> int:
            n = self._count(name, messages)
            lengths[name] = (lengths[name][0], max(lengths[name][1], n + earlier))
            return n

        talkative = Expected(lambda name, kind: most[name], dict.fromkeys(most, 0.5))
        asyncio.run(rehearse(self.setting(self.options, self.recipe.student), self._repeat(_TALKED), talkative, count))
        return lengths

    def _longest_plain(self, name: str) -> int:
        wording = Wording(self.options, self.prompts, self.task)
        shown = (wording.plain(p) for p in self._problems)
        return max((self._counts[name].messages(m) for m in shown), default=0)

    # --- lines of the plan

    def questions(self, stage: str, spec: AgentSpec, n: int, rehearsed: Rehearsed, free: int = 0) -> None:
        """Add ``n`` questions to a committee. Of the calls for each, ``free`` are paid for in another stage."""
        least, most = rehearsed.bounds[spec.name]
        once, error = self.measured.per_question(stage, spec.name) or (rehearsed.usual.get(spec.name, Spend()), None)
        if free:
            least, most = (
                s.over(s.calls / max(0, s.calls - free)) if s.calls > free else Spend() for s in (least, most)
            )
            if error is None and once.calls:
                once = once.over(once.calls / max(0.0, once.calls - free)) if once.calls > free else Spend()
        plain = self._plain(spec, self.task, self._problems)
        low = Spend(least.calls, least.calls * plain, least.calls)
        high = Spend(most.calls, max(most.prompt, once.prompt), max(most.completion, once.completion))
        if error is not None:  # two standard errors of what was measured, within what the rules allow
            low = _edge(low, once, error, -2, max)
            high = _edge(high, once, error, 2, min)
        self.add(stage, spec, n, low, once, high, measured=error is not None)

    def calls(
        self,
        stage: str,
        spec: AgentSpec,
        n: int,
        taught: float = 0.0,
        new: int | None = None,
        plain: float | None = None,
    ) -> None:
        """Add ``n`` plain questions, a share of them to a student that was ``taught``; ``new`` tokens are allowed."""
        new = new or spec.max_new_tokens
        prompt = self.plain if plain is None else plain
        own = self.measured.per_call(stage, spec.name, several=bool(taught))
        if own is None:
            alone = self.measured.per_call(stage, spec.name, several=False)
            length = alone.completion if alone else self.tokens(spec.name, "test")
            own = Spend(1, alone.prompt if alone else prompt, (1 - taught) * length + taught * self._student_tokens())
        own.completion = min(own.completion, new)
        self.add(stage, spec, n, Spend(1, own.prompt, 1), own, Spend(1, own.prompt, new))
        once = {JUDGED: Spend(1, 0, own.completion)}
        self.add_verdicts(stage, n, Rehearsed(once, {JUDGED: (Spend(1, 0, 1), Spend(1, 0, new))}))

    def add_verdicts(self, stage: str, n: int, rehearsed: Rehearsed) -> None:
        """Add the verdicts on the answers to ``n`` questions. A failed call and an empty answer have none."""
        judge = self.recipe.judge
        if judge is None:
            return
        each = len(judge.orders)
        usual, (least, most) = rehearsed.usual.get(JUDGED, Spend()), rehearsed.bounds[JUDGED]
        for spec in judge.agents:
            frame = self._verdict_prompt(spec)
            tries, new = judge.tries if spec.temperature else 1, self.tokens(spec.name, KIND)

            def verdicts(answers: Spend, tries: int, new: float, frame: float = frame) -> Spend:
                calls = answers.calls * each * tries
                return Spend(calls, calls * frame + answers.completion * each * tries, calls * new)

            once, error = self.measured.per_question(f"judge:{stage}", spec.name) or (verdicts(usual, 1, new), None)
            high = verdicts(most, tries, spec.max_new_tokens)
            self.add(f"judge:{stage}", spec, n, verdicts(least, 1, 1), once, high, measured=error is not None)

    def _verdict_prompt(self, spec: AgentSpec) -> float:
        """Prompt tokens of a verdict on an empty answer, on average."""
        judge = self.recipe.judge
        assert judge is not None, "nobody judges"
        prompts, order = open_prompts(judge.rules), judge.orders[0]
        shown = [judge_prompt(prompts, judge.rules, p, "", order).chat for p in self._problems[:_SAMPLE]]
        return fmean(self._counts[spec.name].messages(m) for m in shown) if shown else 0

    @cached_property
    def shown(self) -> EpisodeLengths | None:
        """The lengths of the episodes that the environment shows itself, by the first tasks."""
        if not isinstance(self.task, Acting):
            return None
        return episode_lengths(self.task, self._problems[:_SAMPLE], self._counts[self.recipe.student.name].messages)

    def episodes(self, stage: str, spec: AgentSpec, n: int, turns: float, most: int, seen: tuple[float, float]) -> None:
        """Add ``n`` episodes of usually ``turns`` turns. Every turn reads all turns before it; ``seen`` is the
        environment's usual and greatest number of tokens.
        """
        new, long = self.tokens(spec.name, "act"), spec.max_new_tokens
        usual = Spend(turns, turns * (self.plain + (turns - 1) / 2 * (new + seen[0])), turns * new)
        far = Spend(most, most * (self.plain + (most - 1) / 2 * (long + seen[1])), most * long)
        self.add(stage, spec, n, Spend(1, self.plain, 1), usual, far)

    def person(self, spec: AgentSpec, n: int, turns: float, most: int) -> None:
        """Add the calls of a model that plays a person in ``n`` episodes: the first words, and a reply to each action
        without a call.

        The model reads its part, which is reckoned as twice the first words of the scripted one, and rules.
        """
        share = self.shown.spoken / self.shown.turns if self.shown else 1.0
        part = _PART + 2 * fmean(self._counts[spec.name].text(p.question) for p in self._problems[:_SAMPLE])
        new, their = self.tokens(spec.name, "answer"), self.recipe.student.max_new_tokens
        texts, long = 1 + turns * share, 1.0 + most
        usual = Spend(texts, texts * (part + (texts - 1) / 2 * 2 * new), texts * new)
        far = Spend(long, long * (part + (long - 1) / 2 * (their + spec.max_new_tokens)), long * spec.max_new_tokens)
        self.add("user", spec, n, Spend(1, part, 1), usual, far)

    def add(
        self, stage: str, spec: AgentSpec, n: int, low: Spend, once: Spend, high: Spend, measured: bool = False
    ) -> None:
        if not high.calls or not n:
            return
        price = spec.price or FREE

        def span(of: str) -> Span:
            least, usual, most = (n * getattr(s, of) for s in (low, once, high))
            return Span(min(least, usual), usual, max(most, usual))

        def cost(s: Spend, cached: float) -> float:
            return n * price.of(Usage(round(1e6 * s.prompt), round(1e6 * s.completion), round(1e6 * cached))) / 1e6

        money = Span(cost(low, low.prompt), cost(once, once.cached), cost(high, 0))
        money = Span(min(money.least, money.expected), money.expected, max(money.most, money.expected))
        tokens = (span("prompt"), span("completion"))
        self.made.append(Planned(stage, spec.name, span("calls"), *tokens, money, measured))

    def votes(self) -> None:
        """The committee sits the test: its debate and, if asked for, answers without it that take as many tokens."""
        test = self.recipe.test
        if not test.committee:
            return
        final = self.rehearse_debate(self.options.for_tests(test.committee_rounds), None)
        for spec in self.recipe.teachers:
            self.questions("debate:test", spec, self.test, final)
        self.add_verdicts("debate:test", self.test, final)
        if not test.self_consistency:
            return
        usual = sum(s.prompt + s.completion for s in final.usual.values())
        most = sum(s.prompt + s.completion for _, s in final.bounds.values())
        for spec in self.recipe.teachers:
            plain, new = self._plain(spec, self.task, self._problems), self.tokens(spec.name, "answer")
            often = max(1.0, usual / max(1.0, plain + new))
            far = max(often, most / (plain + 1))
            low = Spend(1, plain, 1)
            once = Spend(often, often * plain, often * new)
            self.add(f"again:again-{spec.name}", spec, self.test, low, once, Spend(far, far * plain, max(most, often)))

    def tests(self, students: int) -> None:
        """``students`` models sit the test, and those of the other tasks; all but the first were taught."""
        spec, new, taught = self.recipe.student, self.recipe.test.max_new_tokens, 1 - 1 / students
        self.calls("test", spec, students * self.test, taught, new)
        arms = 1 + (students - 1) // len(self.recipe.seeds)  # of each, the model of the first seed draws
        self.calls("draws", spec, self.recipe.test.draws * arms * self.test, taught, new)
        for name, other in self.recipe.also_test.items():
            task = open_task(other.name, other.options)
            problems = task.problems("test")
            self.calls(f"test:{name}", spec, students * len(problems), taught, new, self._plain(spec, task, problems))


_NOWHERE: Any = None
"""Stands for the journal in a rehearsal."""


def _edge(bound: Spend, mean: Spend, error: Spend, by: float, tighter: Any) -> Spend:
    return Spend(
        *(
            tighter(getattr(bound, k), getattr(mean, k) + by * getattr(error, k))
            for k in ("calls", "prompt", "completion")
        )
    )
