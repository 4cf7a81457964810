"""The verbs of on-policy distillation: over a session's task and agents, debates on states, supervision, arms."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import Field, model_validator

from vivavoce.agents import engines
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Action, Member
from vivavoce.committee.wording import Talk
from vivavoce.config import AgentSpec, Recipe
from vivavoce.data.consensus import consensus_trees
from vivavoce.data.hints import right_hint
from vivavoce.data.states import Supervised, states, winner
from vivavoce.environments.environment import Guide
from vivavoce.errors import RecipeError
from vivavoce.exams.arms import Pair
from vivavoce.graph import Graph, Stored
from vivavoce.methods.attempts import attempt, later_name
from vivavoce.methods.day import with_day
from vivavoce.methods.learnt import Trained
from vivavoce.methods.opd_arms import USUAL, DebateChoices, ImitationArm, OnPolicyArm, PreferenceArm, ScoredArm
from vivavoce.methods.seats import SCORING, need_scorers
from vivavoce.methods.session import Session
from vivavoce.methods.voting import VotingSession
from vivavoce.progress import bar, say
from vivavoce.records import Example, Node, Problem, seed_of
from vivavoce.tasks import Task
from vivavoce.tasks.acting import Acting
from vivavoce.train.objective import (
    OnPolicyOptions,
    OnPolicySettings,
    Scorer,
    ServedModel,
    ServedStudent,
    engine_scorer,
    local_scorer,
)
from vivavoce.train.settings import SFTSettings, TreeDPOSettings

_VERIFIED = 500
"""The largest number of verified answers whose likelihood is compared."""


class DistilRecipe(Recipe):
    """Keys that recipes of on-policy distillation share: the scorers of the student's tokens."""

    scorers: list[AgentSpec] | None = Field(
        default=None,
        description="models that score the student's tokens, local ones or on a "
        "vLLM server; None: the teachers that can",
    )
    debate_seed: int | None = Field(
        default=None,
        description="seed of the debates on the student's states alone: another seed gives other debates for the same "
        "students and tests; None: the recipe's seed",
    )

    @property
    def scoring_agents(self) -> list[AgentSpec]:
        """The agents that score."""
        return [t for t in self.teachers if t.backend in SCORING] if self.scorers is None else self.scorers

    @property
    def scored_arms(self) -> Mapping[str, ScoredArm]:
        """The arms with scorers, by name."""
        return {}

    @model_validator(mode="after")
    def _arms_name_those_who_are_there(self) -> DistilRecipe:
        there = [t.name for t in self.teachers]
        scoring = [*(s.name for s in self.scoring_agents), self.student.name]
        for name, arm in self.scored_arms.items():
            routed = [one for names in arm.route.values() for one in names]
            named = [*arm.prior, *arm.inflated, *routed, *(arm.shown_to or ()), *(arm.scorers or ())]
            if unknown := [one for one in named if one not in scoring]:
                raise ValueError(f"arm `{name}`: `{unknown[0]}` does not score; the scorers are {', '.join(scoring)}")
            if unknown := [one for one in arm.debaters or () if one not in there]:
                raise ValueError(f"arm `{name}`: `{unknown[0]}` does not debate; the debaters are {', '.join(there)}")
            if any(factor < 0 for factor in arm.prior.values()):
                raise ValueError(f"arm `{name}`: a prior cannot be negative")
        return self


def need_told(recipe: DistilRecipe, task: Task) -> None:
    """Raise RecipeError if an arm's debate cannot be held by the recipe's protocol and prompts, or if right answers are
    to be told or shown and the task knows none.
    """
    needy = list[str]()
    for name, arm in recipe.scored_arms.items():
        rules = arm.table.rules(recipe.rules)
        if rules.tells or rules.asks_confidence_again:
            prompt_set(rules.prompts).need(rules.asked_templates, rules.values, rules.tells)
        if arm.context == "gold" or rules.tells:
            needy.append(name)
    if needy and not _knows_gold(task):
        what = f"arm `{needy[0]}` needs right answers, and {task.name} has none"
        raise RecipeError(what, "arms", f"leave out {', '.join(needy)}")


def _knows_gold(task: Task) -> bool:
    if isinstance(task, Acting):
        return isinstance(task.environment(), Guide)
    worked = getattr(task, "worked", None)
    return any(p.gold or (worked and worked(p)) for p in task.problems("train"))


class DistilSession(Session[Talk]):
    """A session whose committee debates the student's states. Opened and closed as a Session is."""

    scorers: Mapping[str, AgentSpec]
    """Models that score, by name; set by the method."""
    supervision: dict[str, dict[str, Any]]
    """Counts of each arm's supervision."""

    def set_scorers(self, scorers: Sequence[AgentSpec]) -> None:
        """Set the scorers. Raises RecipeError if one gives no distributions."""
        need_scorers(scorers)
        if isinstance(self.recipe, DistilRecipe):
            need_told(self.recipe, self.task)
        self.scorers, self.supervision = {spec.name: with_day(spec, self.run.day) for spec in scorers}, {}

    async def debate(
        self,
        problems: Sequence[Problem],
        table: DebateChoices = USUAL,
        action: tuple[Trained, int] | None = None,
        stage: str = "states",
        actions: Mapping[str, Action] | None = None,
    ) -> Stored:
        """Debate the states: once, for every student, seed and objective.

        ``table`` has other debaters than the recipe, or other rules of who is asked again and what is told. Draws
        depend on the members only through the texts that they read, so a first round, or an equal later turn, costs
        nothing again. The debate does not see what the student did, unless the table has it so: then ``action``, a
        student and its seed, adds an answer of that student, or ``actions`` are what was done, by state.
        """
        names = list(table.debaters or self.teachers)
        members = [self._member(spec, "teacher") for spec in self.recipe.teachers if spec.name in names]
        if len(members) < len(names):
            raise RecipeError(
                f"unknown debaters among {', '.join(names)}", "debaters", f"name some of these: {self.teachers}"
            )
        stage, rules = table.stage(stage), table.rules(self.rules)
        if action is not None:
            (student, seed), spec = action, self.recipe.student
            agent = self._agents.another(spec, model=str(student.of(seed)[0]))
            members.append(Member(agent, "student", spec.sampling()))
            stage = f"{stage}-{seed}"
        own = getattr(self.recipe, "debate_seed", None)
        return await self.ask(stage, "debate", members, rules, problems, seed=own, actions=actions)

    # --- supervision

    def supervise(
        self, name: str, arm: OnPolicyArm, graphs: Sequence[Graph], options: OnPolicyOptions
    ) -> tuple[Path, OnPolicySettings]:
        """The states of an arm, written into the run, and how to train on them."""
        scorers = list(self.scorers if arm.scorers is None else arm.scorers)
        rate = options.on_policy if arm.on_policy is None else arm.on_policy
        recorded, rules = partial(winner, task=self.task), arm.table.rules(self.rules)
        if arm.sees_action:
            rate, recorded = 0.0, self._action
        elif rules.tells:  # what teachers write who were told the right answer is no example
            rate = 1.0
        wording, seed = self._wording_of(rules), self.recipe.seed
        rows, counts = states(
            graphs, arm, scorers, wording, seed, recorded if rate < 1 else lambda _: [], self._drawn_tokens
        )
        self.supervision[name] = counts.facts()
        self._enough(name, counts, len(graphs), options, arm)
        informative = options.informative if arm.informative is None else arm.informative
        return self.rows(name, rows), self._how(options, scorers, arm, on_policy=rate, informative=informative)

    def _enough(self, name: str, counts: Supervised, of: int, options: OnPolicyOptions, arm: ScoredArm) -> None:
        """Raise RecipeError if too few of an arm's states can be supervised; warn if some cannot."""
        if counts.dropped > (1 - options.min_coverage) * of:
            failed, do = (
                "calls may have failed:",
                "`viva run --retry-failed` asks again; or lower opd.min_coverage knowingly",
            )
            what, where = f"arm `{name}`: nothing can be shown of {counts.dropped} of {of} states", "debate"
            if arm.context in ("gold", "wrong"):
                known = "right" if arm.context == "gold" else "wrong"
                what = f"{what}, because the task does not say what is {known} there"
                where, failed = "arms", f"leave the arm out, or {failed}"
            raise RecipeError(what, where, f"{failed} {do}")
        if counts.dropped:
            say(f"arm {name}: skipped {counts.dropped} states, because no teacher call for them succeeded")

    def _how(
        self, options: OnPolicyOptions, scorers: Sequence[str], arm: ScoredArm, **changes: Any
    ) -> OnPolicySettings:
        """The recipe's options with one arm's ``changes``, its scorers, and the additions of the prompts and the
        student.
        """
        never, as_end = self.prompts.silent
        computed = {
            "scorers": tuple(self._scorer(k, arm.own_scorer) for k in scorers),
            "objective": options.objective.model_validate({**options.objective.model_dump(), **arm.objective}),
            "never": options.never or never,
            "as_end": options.as_end or as_end,
            **self._sampler(),
        }
        return OnPolicySettings.model_validate({**dict(options), **computed, **changes})

    def _sampler(self) -> dict[str, Any]:
        """The sampler of the student's answers in training: the trainer, unless the recipe has the student served."""
        serve = self._serves
        if serve is None:
            return {}
        state = None if serve.url else engines.state_file(self.student, serve)
        return {"served": ServedStudent(name=self.student, serve=serve, state=state), "sampler": serve.engine}

    def _action(self, graph: Graph) -> list[Node]:
        return [n for n in graph.stated(0, [self.student]) if n.text.strip()]

    def _drawn_tokens(self, answer: Node) -> tuple[int, ...]:
        """The tokens that the student drew for an answer, if its text would be cut into others."""
        if answer.agent != self.student or answer.call is None:
            return ()
        reply = self.run.journal[answer.call].reply
        return reply.ids if reply else ()

    def _scorer(self, name: str, own: Literal["frozen", "ema"] = "frozen") -> Scorer:
        if name == self.student:
            return Scorer(name=name, own=own)
        spec = self.scorers.get(name)
        if spec is None:
            known = ", ".join([*self.scorers, self.student])
            raise RecipeError(f"no agent called `{name}` can score", "scorers", f"name some of these: {known}")
        if spec.backend == "vllm":
            return self._served_scorer(spec)
        serve = self._serving.serve(spec)
        if serve is None or serve.top_logprobs is None:
            return local_scorer(name, spec.options)
        engine = ServedModel(name=name, serve=serve, state=None if serve.url else engines.state_file(name, serve))
        return engine_scorer(name, spec.options, engine)

    def _served_scorer(self, spec: AgentSpec) -> Scorer:
        from vivavoce.agents import vllm, weights

        options = vllm.Options.model_validate(spec.options)
        folder = weights.folder(options.tokenizer or options.model, options.revision, tokenizer_only=True)
        served = vllm.agent(spec.name, options).identity
        return Scorer(
            name=spec.name,
            model=str(folder),
            fingerprint=f"{served}:top{options.top_logprobs}:{weights.fingerprint(folder, tokenizer_only=True)}",
            server=options,
            chat_template_kwargs=options.chat_template_kwargs,
        )

    # --- imitation

    def imitate(self, name: str, arm: ImitationArm, graphs: Sequence[Graph]) -> Path:
        """Supervised rows of an arm."""
        rows = []
        for g in graphs:
            prompt = tuple(self.wording.plain(g.problem))
            if arm.learn == "gold":
                hint = right_hint(g, self.wording)
                rows += [Example(g.problem.id, prompt, hint.text.text, ())] if hint else []
                continue
            texts = {self.prompts.lesson_of(n.text): n.id for n in self._learnt(arm, g) if n.text.strip()}
            rows += [Example(g.problem.id, prompt, text, (node,)) for text, node in texts.items() if text]
        return self.rows(name, rows)

    def _learnt(self, arm: ImitationArm, graph: Graph) -> list[Node]:
        if arm.learn == "winner":
            return winner(graph, self.task, self.recipe.seed)
        teachers = list(arm.teachers or self.teachers)
        if arm.shares is not None:
            rng = random.Random(seed_of(self.recipe.seed, "shares", graph.problem.id))
            teachers = rng.choices(teachers, arm.shares)
        drafts = [n for n in graph.stated(0, teachers) if n.status != "truncated"]
        return [n for n in drafts if n.correct] if arm.learn == "right" else drafts

    async def pairs(self, name: str, arm: PreferenceArm, graphs: Sequence[Graph], start: Trained) -> dict[int, Path]:
        """Preference pairs of an arm by training seed: of answers that the student gives before it."""
        files = {}
        for seed in self.recipe.seeds:
            tried = await attempt(self, graphs, start, seed, arm.samples, arm.temperature)
            own = later_name(self.student)
            trees = consensus_trees(tried, arm.prefer, self.teachers, own, self.wording, self.recipe.seed)
            files[seed] = self.rows(f"{name}-{seed}", trees)
        return files

    def as_many_pairs(self, dpo: TreeDPOSettings, opd: OnPolicyOptions) -> TreeDPOSettings:
        """Settings that make DPO update as often, on pairs of as many questions, as the on-policy arms."""
        update = {"max_steps": opd.max_steps, "trees_per_step": opd.states_per_step}
        return dpo.model_copy(update=update | ({} if opd.max_steps else {"epochs": opd.epochs}))

    def teacher_tokens(self, arm: OnPolicyArm, graphs: Sequence[Graph], trained: Trained) -> dict[str, int]:
        """Tokens that the teachers of an arm read and wrote: in its debate, as if it had been held for it alone, and in
        going over the student's answers (mean of the seeds)."""
        return {"debate": self.spent_on(arm, graphs), "scoring": self.scored_tokens(trained)}

    def spent_on(self, arm: ScoredArm, graphs: Sequence[Graph]) -> int:
        """Tokens that the debate of an arm took, as if it had been held for it alone."""
        shown = [n for g in graphs for n in g.nodes if arm.rounds is None or n.round < arm.rounds]
        return sum(n.usage.prompt + n.usage.completion for n in shown) if arm.debates else 0

    def scored_tokens(self, trained: Trained) -> int:
        """Tokens that teachers went over in a training; the mean of its seeds."""
        return round(fmean(trained.result(seed)["details"]["teacher_tokens"] for seed in trained.models))

    def until_tokens(self, settings: OnPolicySettings, pace: Trained, tokens: int) -> OnPolicySettings:
        """Settings with as many updates as take teachers so many tokens, at the pace of a training that was tried."""
        tried = pace.result(self.recipe.seeds[0])
        each = tried["details"]["teacher_tokens"] / tried["steps"]
        return settings.model_copy(update={"max_steps": max(1, round(tokens / max(1.0, each)))})

    def as_many(self, sft: SFTSettings, opd: OnPolicyOptions) -> SFTSettings:
        """Settings that make SFT update as often, on as many answers, as the on-policy arms."""
        return sft.model_copy(
            update={
                "max_steps": opd.max_steps,
                "epochs": opd.epochs if opd.max_steps is None else sft.epochs,
                "rows_per_step": opd.states_per_step * opd.rollouts,
            }
        )

    def for_as_long(self, sft: SFTSettings, measured: Trained, of: Trained) -> dict[int, SFTSettings]:
        """Settings by seed that make SFT take as many seconds as ``of`` took, at the pace of the run ``measured``."""
        pace = measured.result(self.recipe.seeds[0])

        def updates(seed: int) -> int:
            return max(1, round(of.result(seed)["seconds"] * pace["steps"] / pace["seconds"]))

        return {seed: sft.model_copy(update={"max_steps": updates(seed)}) for seed in self.recipe.seeds}

    # --- what a debate is worth, before anything is trained

    def value(self, graphs: Sequence[Graph]) -> dict[str, Any]:
        """Whether the debate tells scorers more: see :mod:`vivavoce.exams.debate_value`."""
        from vivavoce.exams.debate_value import flips, likelihood, stated_confidence

        specs = {name: self._scorer(name) for name in self.scorers}
        self.start_scorers(list(specs.values()))
        plain, _ = states(
            graphs, OnPolicyArm(context="none", weights="uniform"), list(specs), self.wording, self.recipe.seed
        )
        shown, _ = states(graphs, OnPolicyArm(weights="uniform"), list(specs), self.wording, self.recipe.seed)
        by_id = {g.problem.id: g for g in graphs}
        pairs = []
        views = {s.problem: s for s in shown}
        for state in plain:
            right = [n for n in by_id[state.problem].answers() if n.correct]
            if right and state.problem in views and len(pairs) < _VERIFIED:
                best = max(right, key=lambda n: (n.round, n.probability or 0.0))
                pairs.append((state, views[state.problem], self.prompts.lesson_of(best.text)))
        settings = self._how(
            getattr(self.recipe, "opd", OnPolicyOptions()), (), ScoredArm()
        )  # scorers compute as in training
        with bar("likelihood of verified answers", len(pairs) * len(specs)) as advance:
            likelihoods = {
                name: likelihood(spec, [(p.views[k], s.views[k], text) for p, s, text in pairs], settings, advance)
                for k, (name, spec) in enumerate(specs.items())
            }
        return {"likelihood": likelihoods, "flips": flips(graphs), "confidence": stated_confidence(graphs)}


class QuestionSession(DistilSession, VotingSession[Talk]):
    """A session of distillation on questions, which the committee may be tested on too."""


def usual_pairs(wanted: Sequence[str], singles: Sequence[str], starts: Sequence[str], best: str | None) -> list[Pair]:
    """The arms that a method of distillation tests against each other: the student against all that are ``wanted``;
    then ``starts``, the ``best`` of the ``singles`` and the other arms against the run's main one."""
    main = main_arm(wanted)
    rivals = [*starts, best, *(a for a in wanted if a != main and a not in singles)]
    return [("student", arm) for arm in wanted] + [(a, main) for a in rivals if a]


def main_arm(wanted: Sequence[str]) -> str:
    """The arm that a run of distillation is about."""
    return "debate_opd" if "debate_opd" in wanted else wanted[0]


__all__ = ["DistilRecipe", "DistilSession", "QuestionSession", "main_arm", "need_told", "usual_pairs"]
