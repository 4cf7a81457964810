"""Checks of everything that a run relies on, before it is begun: keys, models, endpoints, prompts, contexts, data,
disk, memory.

No finding is a guess about quality; each is something that was looked at. Endpoints are asked a handful of tiny
questions, announced with their greatest cost.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vivavoce import plugins
from vivavoce.agents import Agent, engine_probes, engines, open_agent
from vivavoce.agents.budget import FREE, money
from vivavoce.agents.chat_template import AS_IT_CAME, ChatTemplate
from vivavoce.agents.engines import Serve
from vivavoce.agents.unsent import unsent
from vivavoce.agents.variables import is_on
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.rehearsal import Planned
from vivavoce.config import AgentSpec, Recipe
from vivavoce.data.overlap import overlap
from vivavoce.errors import AgentError, UserError
from vivavoce.files import object_in
from vivavoce.methods.budgets import budgets, context_of, questions_and_prompts
from vivavoce.methods.devices import check_devices
from vivavoce.methods.distilling import DistilRecipe, need_told
from vivavoce.methods.juries import need_judgeable
from vivavoce.methods.memory import Machine, gib, on_disk, unknown, uses
from vivavoce.methods.opening import Serving, trained_how, trained_rank
from vivavoce.methods.plan import Lengths, longest_calls
from vivavoce.methods.seats import acting, need_draws, need_person, need_scorers, need_student, need_whole
from vivavoce.methods.token_count import local_folder, tokenizer_in
from vivavoce.methods.trainings import Training, total_of
from vivavoce.progress import say
from vivavoce.records import Message, Reply, Sampling, Usage
from vivavoce.tasks import open_task
from vivavoce.trackers import need_trackers
from vivavoce.train.launch import visible_gpus
from vivavoce.train.objective import OnPolicyOptions
from vivavoce.train.settings import TrainSettings

_ASK: list[Message] = [{"role": "user", "content": "Write a random number of eight digits, and nothing else."}]
_NEW_TOKENS, _SEEDS = 32, (1, 2, 3)
_CALLS = 2 + len(_SEEDS)
_ROW_BYTES = 6
"""Bytes of journal and graphs for each token."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: ``failed`` would end the run or spoil its results; a ``warning`` may be meant."""

    level: Literal["ok", "warning", "failed"]
    what: str
    said: str
    do: str = ""


def examine(
    recipe: Recipe, out: Path | None = None, offline: bool = False, machine: Machine | None = None
) -> Iterator[Finding]:
    """Look at everything in turn; ``offline`` asks no model. ``out`` is the run's folder, ``machine`` the one that the
    recipe is meant for, None this one."""
    parts = list(recipe.parts.values()) or [recipe]
    for part in parts:
        yield from _prompts(part)
    yield from _trackers(recipe)
    for part in parts:
        yield from _seats(part)
    data = list(_data(recipe))
    yield from data
    if all(f.level != "failed" for f in data):
        yield from (judges := list(_judges(recipe)))
        data += judges
    agents: dict[str, Agent] = {}
    whole = True
    for spec in recipe.agents:
        yield (opened := _check_agent(spec, agents, offline or machine is not None))
        whole = whole and (opened.level != "failed" or spec.backend != "hf_local")
        yield from _unsent(spec)
    if machine is None:
        yield from _engines(recipe, out or Path("runs") / recipe.name, offline)
    if whole:
        for part in parts:
            yield from _tokenizers(part)
        yield from (templates := list(_templates(recipe)))
        data += templates
    longest: dict[str, Lengths] = {}
    if whole and all(f.level != "failed" for f in data):  # what follows is reckoned from the questions' prompts
        for part in parts:
            calls = longest_calls(part)
            yield from _contexts(part, calls)
            longest = {k: max(calls[k], longest.get(k, calls[k]), key=lambda n: n.longest) for k in calls} | {
                k: lengths for k, lengths in longest.items() if k not in calls
            }
        method = plugins.load("methods", recipe.method, "method")
        planned = method.plan(recipe)
        yield from _budget(recipe, planned)
        students = _count_models(recipe, planned, getattr(method, "trainings", None))
        yield from _room(recipe, planned, students, out or Path("runs") / recipe.name)
        yield from _memory(recipe, machine or Machine.here(), longest)
    yield from _devices(recipe, machine)
    if not offline:
        yield from _endpoints(recipe, agents, longest)


def _wrong(what: str, error: UserError) -> Finding:
    return Finding("failed", what, f"{error.what} ({error.where})" if error.where else error.what, error.do)


def _prompts(recipe: Recipe) -> Iterator[Finding]:
    try:
        rules = recipe.rules
        prompt_set(rules.prompts).need(rules.asked_templates, rules.values, rules.tells)
    except UserError as e:
        yield _wrong("prompts", e)
    else:
        yield Finding("ok", "prompts", f"the set {recipe.rules.prompts} has every template")


def _seats(recipe: Recipe) -> Iterator[Finding]:
    """Whether the agents can do what the method wants of them, and the task has an environment if the student acts."""
    try:
        need_student(recipe)
        need_draws(recipe)
        need_scorers(recipe.scoring_agents)
        if recipe.acts:
            tasks = [open_task(s.name, s.options) for s in (recipe.task, *recipe.also_test.values())]
            for task in tasks:
                acting(task)
            if user := getattr(recipe, "user", None):
                need_person(user, *tasks)
    except UserError as e:
        yield _wrong("agents", e)


def _trackers(recipe: Recipe) -> Iterator[Finding]:
    if not recipe.track:
        return
    try:
        need_trackers(recipe.track)
    except UserError as e:
        yield _wrong("track", e)
    else:
        yield Finding("ok", "track", f"figures go to {', '.join(recipe.track)}")


def _judges(recipe: Recipe) -> Iterator[Finding]:
    if recipe.judge is None:
        return
    try:
        for spec in (recipe.task, *recipe.also_test.values()):
            need_judgeable(open_task(spec.name, spec.options), recipe.judge.rules)
    except UserError as e:
        yield _wrong("judge", e)
    else:
        names = ", ".join(spec.name for spec in recipe.judge.agents)
        yield Finding("ok", "judge", f"{names}: {recipe.judge.form}, right from {recipe.judge.threshold:g}")


# --- data


def _data(recipe: Recipe) -> Iterator[Finding]:
    try:
        task = open_task(recipe.task.name, recipe.task.options)
        train, test = recipe.questions(task), task.problems("test")
        others = {k: open_task(s.name, s.options).problems("test") for k, s in recipe.also_test.items()}
    except UserError as e:
        yield _wrong("data", e)
        return
    for split, problems in (("train", train), ("test", test), *(("also_test " + k, v) for k, v in others.items())):
        counted = f"{len(problems):,} {split} questions"
        yield (
            Finding("ok", "data", counted)
            if problems
            else Finding(
                "failed", "data", counted, "check whether a limit is 0, a file is empty, or train_share leaves none"
            )
        )
    for part in recipe.parts.values() or [recipe]:
        try:
            if isinstance(part, DistilRecipe):
                need_told(part, task)
        except UserError as e:
            yield _wrong("arms", e)
    for message, do, sure in getattr(task, "doubts", ()):
        yield Finding("failed" if sure else "warning", "data", message, do)
    for name, problems in (("test", test), *others.items()):
        same, near = overlap(train, problems)
        if same:
            a, b = same[0]
            message = f"{len(same)} questions of {name} are trained on, {b} is {a}"
            yield Finding(
                "failed" if name == "test" else "warning", "overlap", message, "leave them out of one of the two"
            )
        if near:
            a, b = near[0]
            message = f"{len(near)} questions of {name} are nearly in the training questions, {b} is close to {a}"
            yield Finding("warning", "overlap", message, "look at them: perhaps only a number or a name differs")
        if not same and not near:
            yield Finding("ok", "overlap", f"no question of {name} is among the training questions, or nearly")


# --- models


def _check_agent(spec: AgentSpec, agents: dict[str, Agent], elsewhere: bool) -> Finding:
    """Whether the agent can be opened. ``elsewhere``: the run may be on a machine that has or reaches other models."""
    what = f"agent {spec.name}"
    try:
        agent = open_agent(spec.name, spec.backend, spec.options)
    except UserError as e:
        return _wrong(what, e)
    agents[spec.name] = agent
    if spec.backend == "hf_local":
        try:
            folder = local_folder(spec)
            need_whole([spec])
        except UserError as e:
            return _wrong(what, e)
        if folder is None:
            absent = f"{spec.options['model']} is not on this machine"
            if is_on("HF_HUB_OFFLINE"):
                level = "warning" if elsewhere else "failed"
                return Finding(level, what, f"{absent}, and HF_HUB_OFFLINE is set", "unset it, or give a folder")
            return Finding("warning", what, absent, "it is downloaded at first use, if it is an id of the Hub")
        return Finding("ok", what, f"{spec.backend}, {folder}")
    key = getattr(getattr(agent, "options", None), "api_key_env", None)
    return Finding("ok", what, f"{spec.backend}, {agent.identity[:80]}" + (f", ${key} is set" if key else ""))


def _engines(recipe: Recipe, out: Path, offline: bool) -> Iterator[Finding]:
    """Whether the engines that serve models can be started here, or are there, and take what is trained."""
    serving, gpus = Serving.of(recipe, out), visible_gpus()
    rank = trained_rank(recipe)
    scorers = [s for s in recipe.scoring_agents if s not in recipe.agents]
    for spec in [*recipe.agents, *scorers]:
        serve = serving.serve(spec) if spec.backend == "hf_local" else None
        if serve is None:
            continue
        what, learns = f"serve {spec.name}", spec.name == recipe.student.name
        try:
            engines.check(spec.name, serve)
        except UserError as e:
            yield _wrong(what, e)
            continue
        if serve.url is not None:
            if not offline:
                yield _running(what, serve, [settings for _, settings in trained_how(recipe)] if learns else [])
            continue
        named = [one for one in (serve.devices or "").split(",") if one.strip()]
        if (serve.device == "cuda" or named) and not gpus and serve.device != "cpu":
            yield Finding(
                "failed", what, "it needs a GPU, but none is visible", "set device: cpu, or leave devices out"
            )
        elif absent := [one for one in named if one.isdecimal() and int(one) >= len(gpus)]:
            yield Finding("failed", what, f"GPU {absent[0]} is not visible", f"name some of these: {', '.join(gpus)}")
        elif learns and (most := _largest_rank(serve)) is not None and (rank or 0) > most:
            message = f"adapters of rank {rank} are trained, and its --max-lora-rank is {most}"
            yield Finding("failed", what, message, "leave it out of `args`: the run knows the rank")
        else:
            program = " ".join(serve.command or (serve.python or "this Python",))
            yield Finding("ok", what, f"vLLM is started by {program}, on a port that is free then")


def _largest_rank(serve: Serve) -> int | None:
    """The largest rank of adapters that the flags of a recipe allow an engine; None if they do not say."""
    flags = list(serve.args)
    ranks = [b for a, b in itertools.pairwise(flags) if a == "--max-lora-rank"]
    ranks += [flag.partition("=")[2] for flag in flags if flag.startswith("--max-lora-rank=")]
    return int(ranks[-1]) if ranks and ranks[-1].isdecimal() else None


def _running(what: str, serve: Serve, learns: Sequence[TrainSettings]) -> Finding:
    """Whether the engine at an address runs and takes trained weights; ``learns`` are the trainings of its model."""
    if not engine_probes.healthy(serve.root, 10.0):
        return Finding(
            "failed", what, f"no engine answers the health check at {serve.root}", "start it, or correct `url`"
        )
    needed = list[tuple[str, dict[str, str] | None, str]]()
    if any(settings.lora is not None for settings in learns):
        # An adapter that is not there is refused in other words than a path that is not there.
        do = "start it with --enable-lora, --max-lora-rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
        needed.append(("/v1/load_lora_adapter", {"lora_name": "", "lora_path": ""}, do))
    if any(settings.lora is None for settings in learns):
        needed.append(("/is_sleeping", None, "start it with VLLM_SERVER_DEV_MODE=1: its weights can be replaced then"))
    for path, body, do in needed if serve.engine == "vllm" else ():
        if engine_probes.lacks(serve.root, path, body):
            return Finding("failed", what, f"the engine at {serve.root} does not accept newly trained weights", do)
    return Finding("ok", what, f"the engine at {serve.root} answers its health check")


def _unsent(spec: AgentSpec) -> Iterator[Finding]:
    """Sampling settings of the recipe that are not sent to a model."""
    try:
        settings = unsent(spec.name, spec.backend, spec.options, spec.sampling())
    except UserError:  # told already
        return
    for one in settings:
        level: Literal["ok", "warning", "failed"] = (
            "ok" if one.field == "seed" else "failed" if one.field == "logprobs" else "warning"
        )
        yield Finding(level, f"sampling {spec.name}", one.message, one.do)


def _tokenizers(recipe: Recipe) -> Iterator[Finding]:
    """Whether scorers can read the student's tokens unchanged."""
    own = _vocabulary(recipe.student)
    for spec in recipe.scoring_agents:
        what, other = f"tokenizer {spec.name}", _vocabulary(spec)
        if own is None or other is None:
            yield Finding(
                "warning",
                what,
                "not compared, because a model is not on this machine",
                "download it and run `viva doctor` again",
            )
        elif own == other:
            yield Finding("ok", what, "equal to the student's")
        else:
            do = "tokens are aligned by the text that they spell; a teacher of the student's family loses nothing"
            yield Finding("warning", what, "differs from the student's", do)


def _templates(recipe: Recipe) -> Iterator[Finding]:
    """The behaviour of local models' chat templates with the recipe's arguments."""
    system: list[Message] = [{"role": "system", "content": "Be brief."}, *_ASK]
    for spec in recipe.agents:
        if (folder := local_folder(spec)) is None:
            continue
        what = f"template {spec.name}"
        try:
            tokens = tokenizer_in(folder) or folder
            template = ChatTemplate.within(tokens, spec.options.get("chat_template_kwargs"))
            if template is None:  # told already
                continue
            remarks = [
                "it has no system role: system texts are put before the user's turn" if template.form(system) else "",
                f"prompts open a thought ({template.spoken.opened.strip()})" if template.spoken.opened else "",
                "prompts name the day on which the run was begun" if template.dated else "",
            ]
        except UserError as e:
            yield _wrong(what, e)
        else:
            yield Finding("ok", what, "; ".join(filter(None, remarks)) or "it has a system role")


def _vocabulary(spec: AgentSpec) -> dict[str, int] | None:
    folder = local_folder(spec)
    tokens = tokenizer_in(folder) if folder else None
    file = tokens / "tokenizer.json" if tokens else None
    if file is None or not file.is_file():
        return None
    content = object_in(file, AS_IT_CAME)
    vocabulary = content.get("model", content).get("vocab", {})
    pieces = vocabulary.items() if isinstance(vocabulary, dict) else ((v[0], i) for i, v in enumerate(vocabulary))
    return dict(pieces) | {t["content"]: t["id"] for t in content.get("added_tokens", [])}


def _contexts(recipe: Recipe, longest: dict[str, Lengths]) -> Iterator[Finding]:
    """The contexts of the models that are here; endpoints are asked later."""
    broken = list(budgets(recipe, *questions_and_prompts(recipe)))
    yield from (Finding(fit.level, fit.what, fit.message, fit.do) for fit in broken)
    misfits = {fit.what for fit in broken}
    for spec in recipe.agents:
        context = context_of(spec)
        if context is not None and spec.name in longest and f"context {spec.name}" not in misfits:
            yield _fits(spec, longest[spec.name], context)
    opd: OnPolicyOptions | None = getattr(recipe, "opd", None)
    if opd is not None:
        lengths, new = longest[recipe.student.name], max(opd.max_new_tokens, recipe.student.max_new_tokens)
        message = f"prompts of up to {lengths.plain:,} tokens and {new:,} new ones; max_length is {opd.max_length:,}"
        do = "raise opd.max_length, for what is longer is not trained on; below opd.min_coverage training stops"
        fits = lengths.plain + new <= opd.max_length
        yield Finding("ok", "opd.max_length", message) if fits else Finding("warning", "opd.max_length", message, do)


def _fits(spec: AgentSpec, lengths: Lengths, context: int | None) -> Finding:
    """Whether the longest calls of an agent fit its context."""
    what, new = f"context {spec.name}", spec.max_new_tokens
    message = f"prompts of up to {lengths.longest:,} tokens and {new:,} new ones"
    if context is None:
        return Finding("ok", what, f"{message}; the endpoint does not say how many it accepts")
    if lengths.plain + new > context:
        do = "lower max_new_tokens, leave long questions out, or use a model with a longer context"
        took = lengths.plain + new
        return Finding("failed", what, f"a plain question and its answer take {took:,} of {context:,} tokens", do)
    if lengths.longest + new > context:
        do = "set debate.context_tokens, lower max_new_tokens or word_limit; otherwise such calls are cut or fail"
        return Finding("warning", what, f"{message}, but the context has {context:,}", do)
    return Finding("ok", what, f"{message}, of {context:,}")


# --- money and room


def _budget(recipe: Recipe, planned: list[Planned]) -> Iterator[Finding]:
    for spec in recipe.agents:
        if spec.price is None and spec.backend not in ("hf_local", "scripted"):
            do = "give it `price: {prompt: …, completion: …}`, of a million tokens"
            yield Finding("warning", f"price {spec.name}", "not known: its calls count as free", do)
    caps = recipe.budget.run
    expected = {
        "money": sum(p.money.expected for p in planned),
        "calls": sum(p.calls.expected for p in planned),
        "tokens": sum(p.prompt_tokens.expected + p.completion_tokens.expected for p in planned),
    }
    for kind, amount in expected.items():
        cap = getattr(caps, kind)
        if cap is not None and amount > cap:
            message = f"about {amount:,.2f} {kind} are expected, the cap is {cap:,}: the run will stop before its end"
            yield Finding(
                "warning", "budget", message, f"raise budget.run.{kind}, or let it stop and raise the cap then"
            )
    paid = f"{money(expected['money'])} {recipe.currency}"
    message = f"about {expected['calls']:,.0f} calls, {expected['tokens']:,.0f} tokens, {paid}: see viva plan"
    yield Finding("ok", "budget", message)


def _room(recipe: Recipe, planned: list[Planned], students: int, out: Path) -> Iterator[Finding]:
    """Disk for texts and students."""
    here = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    tokens = sum(p.prompt_tokens.expected + p.completion_tokens.expected for p in planned)
    sizes, free = on_disk(recipe, students), shutil.disk_usage(here).free
    each, all_of_them = sizes or (0.0, 0.0)
    need, by_name = _ROW_BYTES * tokens + all_of_them, recipe.student.name in unknown(recipe)[1]
    kept = f"{students} students of {gib(each)}{', by its name' * by_name}, with checkpoints"
    kept = kept if sizes else "without the students, whose size is not known"
    message = f"{gib(need)} needed ({kept}), {gib(free)} free in {here}"
    do = "choose another --out, or train adapters (lora)"
    yield Finding("ok", "disk", message) if need < free else Finding("warning", "disk", message, do)


def _memory(recipe: Recipe, machine: Machine, longest: dict[str, Lengths]) -> Iterator[Finding]:
    """The predicted memory of all that is loaded and trained at one time, against the memory of the machine."""
    absent, by_name = unknown(recipe)
    more = f"; not counted, because they are not on this machine: {', '.join(absent)}" if absent else ""
    more += f"; sizes by their names: {', '.join(by_name)}" if by_name else ""
    dos = {
        "talking": "take dtype: bfloat16 or quantise: nf4, lower max_batch_tokens, put models on GPUs of their own "
        "(device: cuda:1), or have them served",
        "training": _lighter(recipe),
    }
    for use in uses(recipe, machine, {name: lengths.longest for name, lengths in longest.items()}):
        if use.needed < use.free:
            yield Finding("ok", "memory", use.summary + more)
        else:
            yield Finding("warning", "memory", use.summary + more, dos[use.when])


def _lighter(recipe: Recipe) -> str:
    """What would make a training take less memory, of all that the recipe does not do yet."""
    how, scored = [settings for _, settings in trained_how(recipe)], bool(recipe.scoring_agents)
    adapters = [settings for settings in how if settings.lora is not None]
    ways = {
        "lower parallel": recipe.parallel > 1,
        "lower token_budget or max_length": True,
        "set gradient_checkpointing: true": not all(settings.gradient_checkpointing for settings in how),
        "train adapters (lora)": len(adapters) < len(how),
        "take quantise: nf4": any(settings.quantise is None for settings in adapters),
        "take adam_bits: 8": any(settings.lora is None and settings.adam_bits > 8 for settings in how),
        "set opd.resident: one": scored and any(getattr(settings, "resident", "one") != "one" for settings in how),
        "share it among GPUs (train: {processes: …, fsdp: true})": not recipe.train.fsdp,
    }
    return ", or ".join(way for way, left in ways.items() if left)


def _devices(recipe: Recipe, machine: Machine | None) -> Iterator[Finding]:
    """Whether training goes with the GPUs that there are."""
    gpus = visible_gpus() if machine is None else tuple(map(str, range(len(machine.gpus))))
    try:
        check_devices(recipe, gpus)
    except UserError as e:
        yield _wrong("train", e)
        return
    devices = recipe.train
    each = (
        f"{devices.processes} processes train a student"
        if (devices.processes or 1) > 1
        else "one process trains a student"
    )
    shared = ", each with a part of it" if devices.fsdp else ""
    seen = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}" if gpus else "no GPU"
    yield Finding("ok", "train", f"{each}{shared}; {seen} visible")


def _count_models(recipe: Recipe, planned: list[Planned], trainings: Callable[[Recipe], list[Training]] | None) -> int:
    """The number of models that a run trains and keeps; of those that are tested, if its method does not tell the
    trainings.
    """
    if trainings is not None:
        return total_of(trainings(recipe)).models
    tests = sum(p.calls.most for p in planned if p.stage == "test")
    questions = len(open_task(recipe.task.name, recipe.task.options).problems("test"))
    return round(tests / max(1, questions)) - 1


# --- endpoints


def _endpoints(recipe: Recipe, agents: dict[str, Agent], longest: dict[str, Lengths]) -> Iterator[Finding]:
    remote = [s for s in recipe.agents if s.backend not in ("hf_local", "scripted") and s.name in agents]
    if not remote:
        return
    each = Usage(100 * _CALLS, _NEW_TOKENS * _CALLS)
    most = sum((s.price or FREE).of(each) for s in remote)
    unknown = "" if all(s.price for s in remote) else ", and what has no price"
    names = ", ".join(s.name for s in remote)
    paid = f"{money(most)} {recipe.currency}{unknown}"
    say(f"asking {names} {_CALLS} tiny questions each: at most {paid} (--offline: none)")

    async def all_of_them() -> list[list[Finding]]:
        by_agent = await asyncio.gather(*(_ask_endpoint(s, agents[s.name], longest.get(s.name)) for s in remote))
        await asyncio.gather(*(agents[s.name].aclose() for s in remote))
        return by_agent

    for findings in asyncio.run(all_of_them()):
        yield from findings


async def _ask_endpoint(spec: AgentSpec, agent: Agent, lengths: Lengths | None) -> list[Finding]:
    """The findings about one endpoint, from a few questions to it."""
    what = f"endpoint {spec.name}"
    greedy = Sampling(0.0, max_new_tokens=_NEW_TOKENS, logprobs=spec.logprobs)
    drawn = Sampling(1.0, max_new_tokens=_NEW_TOKENS)
    try:
        first = await agent.reply(_ASK, greedy, 1)
        repeated = await agent.reply(_ASK, greedy, 1)
        others = [await agent.reply(_ASK, drawn, seed) for seed in _SEEDS]
    except AgentError as e:
        if e.reason == "empty":
            do = "if it reasons before it answers, raise max_new_tokens"
            return [Finding("warning", what, f"no text within {_NEW_TOKENS} tokens", do)]
        return [
            Finding("failed", what, str(e), e.do or "check the address, and whether the server knows the model's name")
        ]
    findings = [Finding("ok", what, f"reached; the model calls itself {first.model or 'nothing'}")]
    if spec.logprobs:
        there = first.tokens is not None
        do = "set logprobs: false; votes then go by what agents say of themselves"
        findings.append(
            Finding("ok", what, "gives log-probabilities")
            if there
            else Finding("failed", what, "gives no log-probabilities, which the recipe asks for", do)
        )
    findings += [*_temperature(what, spec.samples, first, repeated, others), *_usage(what, [first, repeated, *others])]
    if lengths is not None:
        tells = getattr(agent, "context", None)
        findings.append(_fits(spec, lengths, await tells() if tells else None))
    return findings


def _temperature(what: str, samples: int, first: Reply, repeated: Reply, others: list[Reply]) -> Iterator[Finding]:
    if len({r.text for r in others}) == 1:
        level = "failed" if samples > 1 else "warning"  # one answer to a question does no harm by being the likeliest
        do = (
            "all samples would be equal: check whether a cache or a setting of the server overrides "
            "`temperature` or `seed`"
        )
        yield Finding(level, what, f"{len(others)} seeds at temperature 1 give one and the same text", do)
    else:
        yield Finding("ok", what, "seeds at temperature 1 give different texts")
    if first.text == repeated.text:
        yield Finding("ok", what, "asked twice at temperature 0, it gives the same reply")
    else:
        do = "a run that goes on keeps its replies, but a new run will differ from it"
        yield Finding("warning", what, "asked twice at temperature 0, it gives different replies", do)


def _usage(what: str, replies: list[Reply]) -> Iterator[Finding]:
    if all(r.usage.prompt and r.usage.completion for r in replies):
        yield Finding("ok", what, "reports the tokens of every call")
    else:
        yield Finding(
            "warning", what, "does not report the tokens of a call", "caps count the most that each call may use"
        )
