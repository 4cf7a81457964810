"""One YAML file, one strict recipe; every mistake is named with file and line before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from vivavoce import plugins
from vivavoce.agents.budget import Budget, Caps, Ledger, Price
from vivavoce.committee.judges import Judging
from vivavoce.committee.prompting import prompts_of
from vivavoce.committee.wording import Talk
from vivavoce.complaints import yaml_in_words
from vivavoce.errors import DataError, RecipeError
from vivavoce.files import text_of
from vivavoce.mistakes import (
    Lines,
    Misplaced,
    Place,
    Places,
    all_in_one,
    booleans_as_numbers,
    mistakes_in,
    need_each_key_once,
)
from vivavoce.protocols import open_protocol
from vivavoce.records import Problem, Sampling
from vivavoce.tasks import Task
from vivavoce.trackers import TrackerName

M = TypeVar("M", bound=BaseModel)
SECTIONS = ("debate", "review")
"""Sections of a recipe that hold a protocol's options."""
_OURS = ("hf_local", "scripted")
"""Backends whose calls cost no money."""


class AgentSpec(BaseModel):
    """One agent: a name of the user's choice, a backend, how it is sampled; other keys are the backend's options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1, description="any text; it appears in graphs and reports, not in anonymous prompts")
    backend: str = Field(default="hf_local", description="a file of vivavoce/agents, or a path to one")
    temperature: float = Field(default=0.3, ge=0, description="sampling temperature of debates (paper: 0.3)")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sample only from the likeliest tokens that together have this probability"
    )
    top_k: int = Field(
        default=0,
        ge=0,
        description="sample only from so many of the likeliest tokens; 0: from all (MAD-OPD's scripts: 20)",
    )
    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        description="above 1, tokens that the prompt or the reply already holds become less likely; 1: no penalty "
        "(MAD-OPD's code: 1.1)",
    )
    max_new_tokens: int = Field(default=1000, ge=1, description="tokens of one reply at most (authors' code: 1,000)")
    stop: list[str] = Field(default=[], description="texts that end a reply")
    system: str = Field(
        default="",
        description="for a teacher: a text that precedes each of its prompts, beside the prompt set's own (FAIR's code "
        "gives one teacher such a text)",
    )
    samples: int = Field(default=1, ge=1, description="answers drawn in round 0 (authors' code: 5 for the student)")
    logprobs: bool = Field(default=False, description="ask for token log-probabilities: needed to vote by probability")
    price: Price | None = Field(
        default=None, description="price of a million tokens; None: the agent costs nothing, or its price is not known"
    )
    budget: Caps = Field(default=Caps(), description="caps of this agent over the whole run")
    expected_tokens: int | None = Field(
        default=None, ge=1, description="tokens of a usual reply, for `viva plan`; None: 40 % of max_new_tokens"
    )
    expected_right: float = Field(
        default=0.7, ge=0, le=1, description="share of first answers that are right, for `viva plan`"
    )

    @property
    def options(self) -> dict[str, Any]:
        """The backend's options."""
        return dict(self.model_extra or {})

    def sampling(self, **changes: Any) -> Sampling:
        """The sampling settings of this agent's replies."""
        settings = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "max_new_tokens": self.max_new_tokens,
            "stop": tuple(self.stop),
            "logprobs": self.logprobs,
        }
        return Sampling(**{**settings, **changes})


class TaskSpec(BaseModel):
    """The task's name; other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str = Field(description="a file of vivavoce/tasks, or a path to one")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Examination(BaseModel):
    """Settings of the tests of students and of the committee."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(default=0.0, ge=0, description="0: greedy (authors' code: 0.3 with top_p 0.9)")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sample only from the likeliest tokens that together have this probability"
    )
    top_k: int = Field(default=0, ge=0, description="sample only from so many of the likeliest tokens; 0: from all")
    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        description="above 1, tokens that the question or the answer already holds become less likely",
    )
    max_new_tokens: int = Field(default=700, ge=1, description="tokens of one answer at most (authors' code: 700)")
    draws: int = Field(
        default=0,
        ge=0,
        description="answers that each student draws to every question, or episodes that it plays, for pass@k, "
        "pass^k and votes; 0: none",
    )
    draws_temperature: float = Field(default=0.8, gt=0, description="sampling temperature of these answers")
    best_by: list[Literal["probability", "judge"]] = Field(
        default=[],
        description="scores by which the best of these answers is chosen, beside the vote, gold unseen: the student's "
        "own probability of its answer, or the mean score of the recipe's `judge`",
    )
    committee: bool = Field(default=True, description="debate the test questions too, gold-free, and count its votes")
    committee_rounds: int = Field(default=2, ge=1, description="answer rounds of that debate")
    self_consistency: bool = Field(
        default=False,
        description="beside that debate, each teacher alone, and all together, answer without it until they have used "
        "as many tokens, at draws_temperature, and vote",
    )

    def sampling(self, stop: Sequence[str]) -> Sampling:
        """The sampling settings of an answer, which the texts in ``stop`` end."""
        drawn = {"top_k": self.top_k, "repetition_penalty": self.repetition_penalty}
        return Sampling(self.temperature, self.top_p, self.max_new_tokens, tuple(stop), **drawn)

    @property
    def asked(self) -> dict[str, Any]:
        """The settings that kept answers depend on, those of further draws left out.

        What came later is named only if it asks for something, so that older answers are found again.
        """
        settings = self.model_dump(mode="json", exclude={"draws", "draws_temperature", "best_by"})
        later = {"top_k": 0, "repetition_penalty": 1.0}
        return {key: value for key, value in settings.items() if key not in later or value != later[key]}


class Statistics(BaseModel):
    """Settings of the comparison of arms."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    cluster: Literal["question", "group"] = Field(
        default="question",
        description="the unit that counts as one independent observation, over all training seeds: a question, "
        "with those that its task says belong to it (about the same passage, say), or a whole group (subject, skill)",
    )
    matters: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="smallest gain that matters, as a share of the questions; it separates comparisons that show no "
        "such gain from those that have too few questions to tell",
    )


class Judge(Judging):
    """The judges that grade answers, and their rules."""

    agents: list[AgentSpec] = Field(
        min_length=1, description="models that judge; each is an agent like a teacher, and each call is paid"
    )

    @property
    def rules(self) -> Judging:
        """The rules without the judges."""
        return Judging(**self.model_dump(include=set(Judging.model_fields)))


class Scale(BaseModel):
    """The engine that spreads a run's questions over machines. It changes on which machine calls are made, and no
    result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    engine: Literal["ray"] = Field(description="ray: parts of the run are tasks of a Ray cluster")
    parts: int = Field(
        default=8,
        ge=1,
        description="parts that the training questions are cut into; several for each node, so that little work is "
        "lost if a node fails",
    )
    address: str | None = Field(
        default=None,
        description="address of the cluster; None: that of RAY_ADDRESS, or a cluster of this machine alone",
    )
    cpus: float = Field(default=1.0, gt=0, description="cores that a part uses on its node")


class Devices(BaseModel):
    """The processes that train one student together. They change where it is trained, not on what or how."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    processes: int | None = Field(
        default=None,
        ge=1,
        description="processes that share every update of a student, each on a GPU of its own, or on cores; None: this "
        "process trains, which must then see no more than one GPU",
    )
    fsdp: bool = Field(
        default=False,
        description="each process holds a part of the student's weights, gradients and optimiser states, and of the "
        "layers of local scorers, in place of all of them (FSDP2); with bf16 it computes with bfloat16 weights and "
        "keeps its part of them in float32",
    )

    @model_validator(mode="after")
    def _shared_among_several(self) -> Devices:
        if self.fsdp and (self.processes or 1) < 2:
            raise ValueError("fsdp shares a student among processes: set processes to 2 or more")
        return self


class Recipe(BaseModel):
    """A recipe: the keys that every method has. A method's ``Options`` is a subclass with its own sections."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    acts: ClassVar[bool] = False
    """Whether the student acts in the task's environment."""

    method: str = Field(description="a file of vivavoce/methods")
    name: str = Field(
        default="run",
        pattern=r"^[\w.-]*[\w-][\w.-]*$",
        max_length=100,
        description="name of the run; its folder unless --out says another",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="every other seed derives from it")
    in_flight: int = Field(default=512, ge=1, description="debates and test questions in flight at once")
    task: TaskSpec = Field(description="what is asked: the name of a task, and its options")
    teachers: list[AgentSpec] = Field(min_length=1, description="the committee, one entry for each teacher")
    student: AgentSpec = Field(description="the model that learns; a local one")
    test: Examination = Field(
        default=Examination(), description="how students, and the committee beside them, are tested"
    )
    also_test: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], TaskSpec] = Field(
        default={}, description="further tests by name, each a task whose test questions every student answers as well"
    )
    judge: Judge | None = Field(
        default=None,
        description="models that grade answers, in debates and tests; needed if the task's grader is `judge`",
    )
    scale: Scale | None = Field(
        default=None, description="the engine that spreads the questions over machines; None: this process asks"
    )
    train: Devices = Field(default=Devices(), description="the processes that train one student together")
    seeds: list[int] = Field(default=[0], min_length=1, description="training seeds of every arm")
    parallel: int = Field(
        default=1,
        ge=1,
        description="students that are trained at once, each in a process of its own, or that answer at once",
    )
    pairs: Literal["all"] | list[tuple[str, str]] = Field(
        default=[],
        description="arms to test against each other beside those that the method compares: pairs of names, or all; "
        "p-values are corrected for all of them together",
    )
    statistics: Statistics = Field(default=Statistics(), description="how arms are compared")
    track: list[TrackerName] = Field(
        default=[],
        description="trackers that show spend, agreement, loss and accuracy: trackio, wandb, mlflow, tensorboard; all "
        "of them stay on this machine unless your environment says otherwise",
    )
    currency: str = Field(default="USD", description="name of the currency; only a label")
    budget: Budget = Field(default=Budget(), description="caps; the run stops at a cap, and goes on after you raise it")

    @property
    def rules(self) -> Talk:
        """The options of the protocol by which the committee talks; a method names the section that holds them."""
        return Talk()

    def questions(self, task: Task) -> list[Problem]:
        """The questions that students learn from: the task's, unless a method takes others."""
        return task.problems("train")

    @property
    def parts(self) -> Mapping[str, Recipe]:
        """The recipes that this one is made of, by name; none if it is no chain."""
        return {}

    @property
    def students(self) -> list[str]:
        """The arms that are students and sit the test: the one that the method begins with, then those it trains."""
        return ["student"]

    @property
    def compared(self) -> list[str]:
        """The names of all arms that sit the test."""
        return self.students

    @property
    def places(self) -> dict[Place, AgentSpec]:
        """Every agent of the recipe, by its place there."""
        judges = {("judge", "agents", i): spec for i, spec in enumerate(self.judge.agents if self.judge else ())}
        return {**{("teachers", i): t for i, t in enumerate(self.teachers)}, ("student",): self.student, **judges}

    @property
    def agents(self) -> list[AgentSpec]:
        """Every agent of the recipe: teachers, student, and those that a method adds."""
        return list(self.places.values())

    @property
    def scoring_agents(self) -> list[AgentSpec]:
        """The agents that score a student's tokens in its training: none, unless the method has such."""
        return []

    def ledger(self, parts: int = 1) -> Ledger:
        """Prices and caps, for a journal. A part of a run has its share of the caps."""
        return Ledger(
            {a.name: a.price for a in self.agents if a.price},
            run=self.budget.run.share(parts),
            agents={a.name: a.budget.share(parts) for a in self.agents},
            question=self.budget.question,
            currency=self.currency,
        )

    @model_validator(mode="before")
    @classmethod
    def _prompts_are_the_tasks(cls, values: Any) -> Any:
        """A protocol's section without a prompt set gets that of the task."""
        task = values.get("task") if isinstance(values, dict) else None
        if isinstance(task, TaskSpec):
            task = {"name": task.name, **task.options}
        if not isinstance(task, dict) or "name" not in task:
            return values
        given = dict(values)
        for section in SECTIONS:
            field, keys = cls.model_fields.get(section), given.get(section, {})
            options = None if field is None else field.annotation
            if not (isinstance(options, type) and issubclass(options, Talk)) or field is None:
                continue
            if isinstance(keys, dict) and "prompts" not in keys:
                named = {"prompts": prompts_of(str(task["name"]), task, options.templates)}
                usual = isinstance(field.default, Talk) and section not in given
                given[section] = field.default.model_copy(update=named) if usual else {**keys, **named}
        return given

    @model_validator(mode="after")
    def _money_is_known(self) -> Recipe:
        for agent in self.agents:
            capped = any(caps.money is not None for caps in (self.budget.run, self.budget.question, agent.budget))
            if capped and agent.price is None and agent.backend not in _OURS:
                raise ValueError(
                    f"money is capped, but `{agent.name}` has no price: give it `price: {{prompt: …, completion: …}}` "
                    "for a million tokens; 0 for a server of your own"
                )
        return self

    @model_validator(mode="after")
    def _somebody_scores(self) -> Recipe:
        if "judge" in self.test.best_by and self.judge is None:
            raise Misplaced("`judge` cannot choose the best answer, because the recipe has no judge", "test", "best_by")
        if self.test.best_by and self.acts:
            raise Misplaced("an agent's episodes have no answer that could be chosen by a score", "test", "best_by")
        return self

    @model_validator(mode="after")
    def _judges_are_there(self) -> Recipe:
        tasks = {("task",): self.task, **{("also_test", name): spec for name, spec in self.also_test.items()}}
        for loc, spec in tasks.items():
            if spec.options.get("grader") == "judge" and (self.judge is None or not self.judge.decides):
                raise Misplaced(
                    "the grader `judge` leaves it to models: name them as `judge: {agents: [{name: …, …}], rubric: …}`"
                    + ("" if self.judge is None else ", with decides: true"),
                    *loc,
                    "grader",
                )
        others = [self.student.name, *(t.name for t in self.teachers)]
        names = [spec.name for spec in self.judge.agents] if self.judge else []
        for i, name in enumerate(names):
            if name in others + names[:i]:
                what = f"a judge and another agent are both called `{name}`: give each agent a name of its own"
                raise Misplaced(what, "judge", "agents", i, "name")
        return self

    @model_validator(mode="after")
    def _pairs_are_arms(self) -> Recipe:
        known = self.compared
        for i, (a, b) in enumerate(self.pairs if self.pairs != "all" else ()):
            for name in (a, b):
                if name not in known:
                    raise Misplaced(f"no arm is called `{name}`{plugins.near(name, known)}", "pairs", i)
            if a == b:
                raise Misplaced(f"`{a}` cannot be tested against itself", "pairs", i)
        return self

    @model_validator(mode="after")
    def _student_is_asked_plainly(self) -> Recipe:
        if self.student.system:
            what = (
                "a student's prompts come from the prompt set alone, in tests as in training: write this text "
                "into the set's answer.md"
            )
            raise Misplaced(what, "student", "system")
        return self

    @field_validator("teachers")
    @classmethod
    def _distinct(cls, teachers: list[AgentSpec]) -> list[AgentSpec]:
        names = [t.name for t in teachers]
        if len(set(names)) < len(names):
            raise ValueError(f"two teachers share a name: {', '.join(names)}")
        return teachers

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(
                f"a seed appears twice, and would train the same student twice: {', '.join(map(str, seeds))}"
            )
        if not all(0 <= seed < 2**63 for seed in seeds):
            raise ValueError("seeds are whole numbers from 0 up")
        return seeds


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    ``overrides`` are ``key.sub=value`` texts, the value in YAML; a number in the path picks from a list. Raises
    RecipeError that lists every mistake with its line, the nearest known key for an unknown one, and what is allowed
    for a bad value.
    """
    if not path.is_file():
        what = "this folder is neither a recipe nor a run" if path.is_dir() else "there is no such recipe"
        raise RecipeError(what, str(path), "give a file, a run's folder, or a name that `viva list recipes` shows")
    try:
        text = text_of(path)
    except DataError as e:
        raise RecipeError(f"cannot read the recipe: {e.what}", e.where, e.do) from e
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        need_each_key_once(root, path)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as e:
        what, line = yaml_in_words(e)
        raise RecipeError(f"not YAML: {what}", f"{path}:{line}", "correct this line, or the one above") from e
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        what = f"not YAML: the character U+{ord(text[e.position]):04X} is not allowed there"
        raise RecipeError(what, f"{path}:{line}", "remove it") from e
    except RecipeError:
        raise
    except (ValueError, RecursionError) as e:  # such as a date without such a day, or an alias inside itself
        raise RecipeError(f"not YAML: {e}", str(path), "check dates and aliases; quote what is plain text") from e
    if not isinstance(values, dict):
        raise RecipeError("a recipe is a mapping of keys to values", str(path), "see `viva list recipes`")
    for change in overrides:
        override(values, change, f"--set {change}")
    return check_recipe(values, path, root)


def what_decides(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values without the keys that change only what a run costs, or where it runs."""
    kept = {key: value for key, value in recipe.items() if key not in ("budget", "currency", "track", "scale", "train")}

    def agent(values: dict[str, Any]) -> dict[str, Any]:
        decisive = {
            k: v for k, v in values.items() if k not in ("price", "budget", "expected_tokens", "expected_right")
        }
        if isinstance(served := decisive.get("serve"), dict):  # where and on what an engine runs is no matter
            kept_of_it = ("engine", "top_logprobs")
            decisive["serve"] = {key: served[key] for key in kept_of_it if served.get(key) is not None}
        return decisive

    for key in ("teachers", "scorers"):
        kept |= {key: [agent(values) for values in kept[key]]} if kept.get(key) else {}
    for key in ("student", "user"):
        kept |= {key: agent(kept[key])} if kept.get(key) else {}
    if kept.get("judge"):
        kept["judge"] = {**kept["judge"], "agents": [agent(values) for values in kept["judge"]["agents"]]}
    return kept


def checked_overrides(model: type[M], overrides: Sequence[str], of: M | None = None) -> M:
    """One section alone: its defaults, or the values of ``of``, overridden by ``--set`` texts. Raises RecipeError."""
    values: dict[str, Any] = of.model_dump(mode="json") if of is not None else {}
    for change in overrides:
        override(values, change, f"--set {change}")
    return plugins.check(model, values, "--set")


def check_recipe(values: dict[str, Any], path: Path, root: yaml.Node | None = None) -> Recipe:
    """A recipe from plain values; ``root`` is the YAML that lines are looked up in."""
    where = Lines(root, path)
    if "method" not in values:
        raise RecipeError("key `method` is missing", str(path), f"use one of {', '.join(plugins.names('methods'))}")
    model = plugins.load("methods", str(values["method"]), where(("method",))).Options
    if not issubclass(model, Recipe):
        do = "write `from vivavoce.config import Recipe` and `class Options(Recipe)`"
        raise RecipeError("`Options` of a method is no Recipe", str(values["method"]), do)
    model = with_protocols(model, values, where)
    try:
        recipe = model.model_validate(values)
    except ValidationError as e:
        raise all_in_one(mistakes_in(e, model, Places(model, _keys_of_options(values))), where) from None
    mistaken = [*booleans_as_numbers(recipe, values), *_mistakes_in_options(recipe, model, where)]
    if mistaken:
        raise all_in_one(mistaken, where)
    return recipe


def with_protocols(model: type[Recipe], values: Mapping[str, Any], where: Callable[[Place], str]) -> type[Recipe]:
    """The model of a recipe in which each section that names a protocol has that protocol's own keys."""
    for section in SECTIONS:
        value = values.get(section)
        if section in model.model_fields and isinstance(value, dict) and value.get("protocol"):
            name = str(value["protocol"])
            options = open_protocol(name, where((section, "protocol"))).Options
            if options is not model.model_fields[section].annotation:
                model = create_model(model.__name__, __base__=model, **{section: (options, ...)})  # type: ignore[call-overload]
    return model


def _keys_of_options(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """The keys of the task and of the backends that plain values name, by the section in which they belong."""
    named = [("task", "tasks", values.get("task"), "name", None)]
    for section in ("teachers", "scorers", "student"):
        one = values.get(section)
        agents = one if isinstance(one, list) else [one]
        named += [(section, "agents", agent, "backend", AgentSpec.model_fields["backend"].default) for agent in agents]
    keys: dict[str, list[str]] = {}
    for section, room, given, key, usual in named:
        name = given.get(key, usual) if isinstance(given, dict) else None
        if name in plugins.names(room):
            keys.setdefault(section, []).extend(plugins.load(room, name, section).Options.model_fields)
    return keys


def _mistakes_in_options(recipe: Recipe, model: type[Recipe], where: Lines) -> Iterator[tuple[str, Place]]:
    """Mistakes in the options of tasks and backends, in words, each with the place of its key in the recipe."""
    rooms: list[tuple[str, str, AgentSpec | TaskSpec, Place, str]] = [
        ("agents", spec.backend, spec, loc, "backend") for loc, spec in recipe.places.items()
    ]
    rooms.append(("tasks", recipe.task.name, recipe.task, ("task",), "name"))
    rooms += [("tasks", t.name, t, ("also_test", name), "name") for name, t in recipe.also_test.items()]
    for room, name, spec, loc, key in rooms:
        options = plugins.load(room, name, where((*loc, key))).Options
        try:
            yield from booleans_as_numbers(options.model_validate(spec.options), spec.options, loc)
        except ValidationError as e:
            yield from mistakes_in(e, options, Places(model, {}), loc, type(spec).model_fields)


def override(values: dict[str, Any], change: str, where: str) -> None:
    """Set what ``key.sub=value`` says, in place. Raises RecipeError, which names ``where`` it was written."""
    key, equals, text = change.partition("=")
    do = "write section.key=value"
    if not equals or not key:
        raise RecipeError("an override needs a key and a value", where, do)
    *path, last = key.split(".")
    at: Any = values
    for step in path:
        if isinstance(at, list) and step.isdecimal() and int(step) < len(at):
            at = at[int(step)]
        elif isinstance(at, dict):
            at = at.setdefault(step, {})
        else:
            raise RecipeError(f"there is no section `{step}`", where, do)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as e:  # ValueError: a date without such a day
        raise RecipeError("the value is not YAML", where, do) from e
    if isinstance(at, list) and last.isdecimal() and int(last) < len(at):
        at[int(last)] = value
    elif isinstance(at, dict):
        at[last] = value
    else:
        raise RecipeError(f"there is no key `{last}`", where, do)
