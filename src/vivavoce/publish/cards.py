"""Cards of a model and a data set: the teachers, method, task and result, and everything that was not checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from vivavoce.committee.prompting import prompt_set
from vivavoce.errors import UserError
from vivavoce.files import file_name
from vivavoce.publish.facts import Facts
from vivavoce.report.arms_told import what_it_is
from vivavoce.report.comparison import Paired, paired_tests, planned_tests, signed
from vivavoce.report.sources import Sources

_METHODS = {
    "debate_reflect": "Debate & Reflect (arXiv:2506.03541)",
    "peer_review": "peer review of rationales, FAIR (arXiv:2410.03663)",
    "debate_opd": "debate-conditioned on-policy distillation, MAD-OPD (arXiv:2605.01347)",
    "opad": "debate-conditioned on-policy distillation of an agent, OPAD (arXiv:2605.01347)",
    "chain": "several methods, one after the other",
}


_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"))
"""The Hub's names for the number of rows of a data set, each for fewer rows than that."""


def model_card(facts: Facts) -> str:
    """README.md of the model."""
    results, recipe, arm = facts.results, facts.recipe, _arm(facts)
    low, high = arm["wilson95"]
    head: dict[str, Any] = {
        "library_name": "peft" if facts.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["vivavoce", "distillation", str(recipe["method"])],
    }
    if facts.base:
        head["base_model"] = facts.base
    if facts.wanted.licence:
        head["license"] = facts.wanted.licence
    if facts.wanted.data:
        head["datasets"] = [f"{facts.wanted.to}-data"]
    metric = {
        "type": "accuracy",
        "value": round(arm["accuracy"], 4),
        "name": f"accuracy (95 % {low:.3f} to {high:.3f})",
    }
    name = facts.wanted.to.partition("/")[2]
    task = {
        "task": {"type": "text-generation"},
        "dataset": {"name": str(results["task"]), "type": str(results["task"])},
    }
    head["model-index"] = [{"name": name, "results": [{**task, "metrics": [metric]}]}]
    return "\n".join(
        [
            _front(head),
            f"# {name}",
            "",
            f"{'An adapter for' if facts.adapter else 'A student that started from'} "
            f"`{facts.base or recipe['student'].get('model')}`, taught by a committee of language models with "
            f"[vivavoce](https://pypi.org/project/vivavoce): {_method(recipe)}. It is the arm `{facts.arm}` of the run "
            f"`{facts.sources.name}`, training seed {facts.seed}.",
            "",
            *_people(facts),
            *_trained_on(facts),
            *_figures(facts),
            *_prompt(facts),
            "## Use",
            "",
            "```python",
            *_use(facts),
            "```",
            "",
            *_licence(facts),
            *_made_with(facts.sources),
        ]
    )


def data_card(facts: Facts, configs: Mapping[str, str], counts: Mapping[str, int]) -> str:
    """README.md of the data set; ``configs`` are its configurations and the file of each, ``counts`` their rows."""
    rows = sum(counts.values())
    head: dict[str, Any] = {
        "task_categories": ["text-generation"],
        "size_categories": [next((name for most, name in _SIZES if rows < most), "1M<n<10M")],
        "tags": ["vivavoce", "distillation", "synthetic"],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": place.rpartition("/")[2].removesuffix(".jsonl"), "path": place}],
            }
            for name, place in configs.items()
        ],
    }
    if facts.wanted.licence:
        head["license"] = facts.wanted.licence
    lines = [
        _front(head),
        f"# {facts.wanted.to.partition('/')[2]}-data",
        "",
        f"What a committee of language models wrote for teaching, by {_method(facts.recipe)}, and what students "
        f"answered to the test. Models wrote these texts, so they hold models' mistakes.",
        "",
        "| configuration | split | rows |",
        "| --- | --- | --- |",
        *(
            f"| `{name}` | {place.rpartition('/')[2].removesuffix('.jsonl')} | {counts[name]:,} |"
            for name, place in configs.items()
        ),
        "",
        "Rows of training have `prompt` and `completion` (or `chosen` and `rejected`, or a state's `views`), the",
        "question's id as `problem`, and as `source` the nodes of the run's graphs that they came from. Configurations",
        "that end in `__answers` hold the answers of one model to the test questions, graded.",
        "",
        *_people(facts),
        *_prompt(facts),
        *_licence(facts),
        *_made_with(facts.sources),
    ]
    return "\n".join(lines)


def questions(facts: Facts) -> list[str]:
    """Questions that the user has to answer before anything is published."""
    teachers = ", ".join(_model_of(t) for t in facts.recipe.get("teachers", ()))
    unanswered = [
        f"Do the terms of the teachers ({teachers}) allow another model to be trained on what they said, and "
        "that to be published?",
        f"Under which licence does the task ({facts.results['task']}) come, and may what is made from it be passed on?",
    ]
    if facts.wanted.model:
        base = facts.base or facts.recipe["student"].get("model")
        unanswered.append(
            f"Under which licence does the student's base ({base}) come, and what does it ask of models made from it?"
        )
    return unanswered


def _front(head: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)}---\n"


def _method(recipe: Mapping[str, Any]) -> str:
    method = str(recipe["method"])
    return _METHODS.get(method, f"the method `{method}`")


def _arm(facts: Facts) -> dict[str, Any]:
    return next(arm for arm in facts.results["arms"] if arm["name"] == facts.arm)


def _model_of(spec: Mapping[str, Any]) -> str:
    where = spec.get("provider") or spec.get("backend", "hf_local")
    model = spec.get("model") or spec.get("function") or ""
    return f"{spec['name']}: {model} ({where})" if model else f"{spec['name']} ({where})"


def _people(facts: Facts) -> list[str]:
    lines = ["## Who taught", ""]
    lines += [f"- {_model_of(t)}" for t in facts.recipe.get("teachers", ())]
    judges = (facts.recipe.get("judge") or {}).get("agents") or ()
    lines += [f"- judge {_model_of(j)}" for j in judges]
    return [*lines, ""]


def _trained_on(facts: Facts) -> list[str]:
    training = (facts.results.get("training") or {}).get(facts.arm) or []
    result: dict[str, Any] = next((one for one in training if int(one.get("seed", -1)) == facts.seed), {})
    amounts = (
        f"{result.get('rows_used', 0):,} rows, {result.get('steps', 0):,} updates" if result else "see `recipe.yaml`"
    )
    task = facts.recipe.get("task", {})
    lines = [f"Training questions of `{task.get('name')}`; {amounts}."]
    if meaning := what_it_is(_arm(facts)):
        lines.append(f"`{facts.arm}` is {meaning}.")
    how = "A LoRA adapter was trained" if facts.adapter else "All weights were trained"
    if facts.quantised:
        how += f", beside the base's weights in 4 bits ({facts.quantised}, bitsandbytes)"
    return ["## What it learnt from", "", *lines, f"{how}.", ""]


def _test_facts(facts: Facts) -> str:
    """What the figures were counted on, and how answers were drawn."""
    results, test = facts.results, facts.recipe.get("test") or {}
    temperature = test.get("temperature") or 0
    how = f"drawn at temperature {temperature:g}" if temperature else "greedy"
    train, asked = ({p.question.strip() for p in facts.sources.problems(of).values()} for of in ("train", "test"))
    known = "none of which was trained on"
    if same := len(train & asked):
        known = f"**{same:,} of which are among the training questions**"
    and_known = f", {known}" if train and asked else ""
    of = f"On {results['n']:,} test questions of `{results['task']}`{and_known}"
    return f"{of}; answers are {how}; right and interval are of the first training seed."


def _figures(facts: Facts) -> list[str]:
    results = facts.results
    lines = [
        "## Figures",
        "",
        _test_facts(facts),
        "",
        "| arm | right | % (95 % interval) | over seeds | what it is |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm in results["arms"]:
        low, high = (100 * end for end in arm["wilson95"])
        name = f"**{arm['name']}**" if arm["name"] == facts.arm else arm["name"]
        seeds = f"{100 * arm['mean']:.1f} ± {100 * arm['sd']:.1f}" if arm.get("sd") is not None else ""
        share = f"{100 * arm['accuracy']:.1f} ({low:.1f}–{high:.1f})"
        meaning = what_it_is(arm).replace("|", "\\|")
        lines.append(f"| {name} | {arm['right']:,} of {arm['n']:,} | {share} | {seeds} | {meaning} |")
    pairs = [test for test in paired_tests(results) if facts.arm in (test.a, test.b)]
    if pairs:
        of = ", all training seeds together" if pairs[0].seeds and pairs[0].low is not None else ""
        tests = f"corrected for {planned_tests(results)} tests (Holm)"
        lines += ["", f"On the same questions{of}, with 95 % intervals; whether it is more than chance, {tests}:", ""]
        lines += [_gain(test) for test in pairs]
    judged = results.get("judging")
    if judged:
        lines += [
            "",
            f"Right is what judges call so ({judged['form']}, from {judged['right_from']:g}); see `report.html`.",
        ]
    return [*lines, ""]


def _gain(test: Paired) -> str:
    """A line of one paired test."""
    between = "" if test.low is None or test.high is None else f" ({signed(test.low)} to {signed(test.high)})"
    verdict = f"`{test.winner}` is better" if test.winner else test.verdict
    return f"- `{test.b}` over `{test.a}`: {signed(test.gain)} points{between}, p = {test.p:.2g}: {verdict}"


def _prompt(facts: Facts) -> list[str]:
    section = facts.sources.recipe.get("debate") or facts.sources.recipe.get("review") or {}
    try:
        shown = prompt_set(str(section.get("prompts") or "general")).folder / "answer.md"
        text = shown.read_text("utf-8").strip()
    except (UserError, OSError):
        return []
    return ["## Prompt", "", "Ask it as it was taught (a Jinja template):", "", "````", text, "````", ""]


def _use(facts: Facts) -> list[str]:
    to, kind = facts.wanted.to, "AutoPeftModelForCausalLM" if facts.adapter else "AutoModelForCausalLM"
    few, load = list[str](), f'model = {kind}.from_pretrained("{to}")'
    if facts.quantised:
        few = ["import torch", ""]
        load = (
            f'few = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="{facts.quantised}",\n'
            "                         bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)\n"
            f'model = {kind}.from_pretrained("{to}", quantization_config=few)  # as it was trained'
        )
    names = [*([] if facts.adapter else [kind]), "AutoTokenizer", *(["BitsAndBytesConfig"] if facts.quantised else [])]
    return [
        *few,
        *(["from peft import AutoPeftModelForCausalLM"] if facts.adapter else []),
        f"from transformers import {', '.join(names)}",
        "",
        *load.split("\n"),
        f'tokenizer = AutoTokenizer.from_pretrained("{to}")',
        *_messages(facts),
        "ids = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
        "answer = model.generate(**ids, max_new_tokens=512, do_sample=False)",
        'print(tokenizer.decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]


def _messages(facts: Facts) -> list[str]:
    """Code that makes the messages of a question, as the student was asked the first one of the test."""
    asked = _first_answer(facts)
    question, messages = str(asked.get("question") or ""), asked.get("prompt") or ()
    if not question or not any(question in str(m["content"]) for m in messages):
        return ['messages = [{"role": "user", "content": "…"}]  # the prompt above']
    lines = [f"question = {_quoted(question)}", "messages = ["]
    for message in messages:
        before, asked_there, after = str(message["content"]).partition(question)
        parts = [_quoted(before)] if before or not asked_there else []
        parts += ["question"] if asked_there else []
        parts += [_quoted(after)] if after else []
        lines.append(f'    {{"role": {_quoted(message["role"])}, "content": {" + ".join(parts)}}},')
    return [*lines, "]"]


def _first_answer(facts: Facts) -> dict[str, Any]:
    file = facts.sources.path / "evaluations" / f"{file_name(facts.arm)}-{facts.seed}.jsonl"
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8") as lines:
        return json.loads(next(lines, "{}"))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _licence(facts: Facts) -> list[str]:
    answer = (
        "The publisher says that this was checked." if facts.wanted.terms_checked else "The publisher has not said."
    )
    return ["## Licence", "", *(f"- {question}" for question in questions(facts)), "", answer, ""]


def _made_with(sources: Sources) -> list[str]:
    m = sources.manifest
    packages = ", ".join(f"{name} {version}" for name, version in (m.get("packages") or {}).items())
    return [
        "## How it was made",
        "",
        f"vivavoce {m.get('vivavoce', '?')}; Python {m.get('python', '?')}; {packages}. `recipe.yaml` is the whole "
        "recipe, `report.html` the run's report.",
        "",
    ]


__all__ = ["data_card", "model_card", "questions"]
