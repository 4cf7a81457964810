"""Rows in the forms that other trainers read as they are: TRL, LLaMA-Factory, ms-swift, verl, OpenAI's fine-tuning.

Every form but OpenAI's keeps weight, stream and source of a row in columns beside those that its reader takes. OpenAI's
takes no others: they go line by line into a file of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from vivavoce.data.trees import pairs
from vivavoce.errors import DataError, MissingDependency
from vivavoce.files import file_name
from vivavoce.records import Completion, Example, Problem, Tree

SFTForm = Literal["messages", "prompt-completion"]
Form = Literal[
    "messages", "prompt-completion", "preferences", "trees", "llama-factory", "ms-swift", "verl", "openai", "kto"
]
_OF: dict[str, tuple[type, ...]] = {
    "messages": (Example,),
    "prompt-completion": (Example,),
    "preferences": (Tree,),
    "trees": (Tree,),
    "llama-factory": (Example, Tree),
    "ms-swift": (Example, Tree),
    "verl": (Example,),
    "openai": (Example, Tree),
    "kto": (Example, Tree),
}
"""The kinds of rows that each form can hold."""
_KEPT = ("problem", "source", "stream", "weight", "tree")


def takes(form: Form, kind: type) -> bool:
    """Whether a form can hold such rows."""
    return kind in _OF[form]


def form_rows(
    form: Form, rows: Sequence[Example] | Sequence[Tree], problems: Mapping[str, Problem] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows in a form that takes them. ``problems`` give verl the right answers, if they are known.

    Raises DataError for a tree of single steps in a form of whole answers: see :func:`whole_answers`.
    """
    trees = [row for row in rows if isinstance(row, Tree)]
    examples = [row for row in rows if isinstance(row, Example)]
    if form == "trees":
        yield from tree_rows(trees)
    elif form == "messages" or form == "prompt-completion":
        yield from sft_rows(examples, form)
    elif form == "preferences":
        yield from preference_rows(trees)
    elif form == "kto":
        yield from _kto_rows(examples, trees)
    elif form == "verl":
        yield from _verl(examples, problems or {})
    else:
        made = preference_rows(trees) if trees else sft_rows(examples)
        reshape = {"llama-factory": _llama_factory, "ms-swift": _ms_swift, "openai": _openai}[form]
        yield from map(reshape, made)


def sft_rows(rows: Iterable[Example], form: SFTForm = "messages") -> Iterator[dict[str, Any]]:
    """Conversational SFT rows: ``{"messages"}``, or ``{"prompt", "completion"}`` to train on the completion alone."""
    for row in rows:
        completion = [{"role": "assistant", "content": row.completion}]
        rest = {"problem": row.problem, "source": list(row.source), "stream": row.stream, "weight": row.weight}
        if form == "messages":
            yield {"messages": [*row.prompt, *completion], **rest}
        else:
            yield {"prompt": list(row.prompt), "completion": completion, **rest}


def preference_rows(trees: Iterable[Tree]) -> Iterator[dict[str, Any]]:
    """Conversational DPO rows ``{"prompt", "chosen", "rejected"}``, one for each pair of a tree.

    Where a tree branches inside an answer, both answers carry the shared beginning; its log-probability cancels from
    the preference, so that loss and gradients stay those of the tree.

    Raises DataError for a tree whose alternatives do not reach the end of the answer (``span: step``): every trainer
    that reads these rows ends an answer with the end of turn, and would teach the model to stop there.
    """
    for tree in trees:
        _need_whole(tree)
        for chosen, rejected in pairs(tree):
            yield {
                "prompt": list(tree.prompt),
                "chosen": [{"role": "assistant", "content": tree.prefix + chosen.text}],
                "rejected": [{"role": "assistant", "content": tree.prefix + rejected.text}],
                "problem": tree.problem,
                "tree": tree.id,
                "source": [chosen.source, rejected.source],
                "weight": tree.weight,
            }


def tree_rows(trees: Iterable[Tree]) -> Iterator[dict[str, Any]]:
    """Our own form: whole trees, with all alternatives and the node that said each."""
    return (asdict(tree) for tree in trees)


def _kto_rows(examples: Iterable[Example], trees: Iterable[Tree]) -> Iterator[dict[str, Any]]:
    """KTO rows ``{"prompt", "completion", "label"}``: one for each answer, true if it is right."""
    for row in sft_rows(examples, "prompt-completion"):
        yield {**row, "label": True}
    for tree in trees:
        _need_whole(tree)
        for label, side in ((True, tree.chosen), (False, tree.rejected)):
            for one in side:
                yield {
                    "prompt": list(tree.prompt),
                    "completion": [{"role": "assistant", "content": tree.prefix + one.text}],
                    "label": label,
                    "problem": tree.problem,
                    "tree": tree.id,
                    "source": [one.source],
                    "weight": tree.weight,
                }


def _need_whole(tree: Tree) -> None:
    if not tree.complete:
        raise DataError(
            "its alternatives are single steps, and rows of whole answers would teach the model to stop after them",
            f"tree {tree.id}",
            "give --whole, grow the trees with span: rest, or train on them with `viva train tree-dpo`",
        )


def whole_answers(trees: Iterable[Tree], texts: Mapping[str, str]) -> Iterator[Tree]:
    """Trees whose alternatives go on to the end of the answers that they are steps of; whole ones stay as they are.

    ``texts`` are the answers by the id of their node, as a student is taught to write them. Raises DataError if an
    answer is not there, or does not begin as the tree says: it is one of the student's later attempts, which are in no
    graph.
    """
    for tree in trees:
        if tree.complete:
            yield tree
            continue
        sides = (tuple(_whole(tree, one, texts) for one in side) for side in (tree.chosen, tree.rejected))
        chosen, rejected = sides
        yield replace(tree, chosen=chosen, rejected=rejected, complete=True)


def _whole(tree: Tree, step: Completion, texts: Mapping[str, str]) -> Completion:
    text = texts.get(step.source, "")
    if not text.startswith(tree.prefix + step.text):
        what = "the whole answer of a step is in no graph" if not text else "the answer of a step begins otherwise"
        do = "grow the trees again with trees.span: rest, which keeps whole answers"
        raise DataError(what, f"tree {tree.id}, node {step.source}", do)
    return Completion(text[len(tree.prefix) :], step.source)


# --- forms of other trainers


def _rest(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in _KEPT if key in row}


def _llama_factory(row: dict[str, Any]) -> dict[str, Any]:
    """ShareGPT as LLaMA-Factory reads it with OpenAI's tags: see :func:`dataset_info`."""
    if "messages" in row:
        return row
    return {"messages": row["prompt"], "chosen": row["chosen"][0], "rejected": row["rejected"][0], **_rest(row)}


def _ms_swift(row: dict[str, Any]) -> dict[str, Any]:
    if "messages" in row:
        return row
    rejected = row["rejected"][0]["content"]
    return {"messages": [*row["prompt"], *row["chosen"]], "rejected_response": rejected, **_rest(row)}


def _openai(row: dict[str, Any]) -> dict[str, Any]:
    if "messages" in row:
        return {"messages": row["messages"], "_rest": _rest(row)}
    return {
        "input": {"messages": row["prompt"], "tools": [], "parallel_tool_calls": True},
        "preferred_output": row["chosen"],
        "non_preferred_output": row["rejected"],
        "_rest": _rest(row),
    }


def _verl(rows: Iterable[Example], problems: Mapping[str, Problem]) -> Iterator[dict[str, Any]]:
    """Rows for verl: ``messages`` for its SFT, ``prompt`` and ``reward_model`` for its reinforcement learning."""
    for i, row in enumerate(sft_rows(rows)):
        problem = problems.get(row["problem"])
        yield {
            "data_source": f"vivavoce/{problem.group}" if problem and problem.group else "vivavoce",
            "prompt": row["messages"][:-1],
            "messages": row["messages"],
            "ability": row["stream"],
            "reward_model": {"style": "rule", "ground_truth": problem.gold if problem else ""},
            "extra_info": {"index": i, "split": "train", **_rest(row)},
        }


def dataset_info(path: Path, kind: type) -> dict[str, Any]:
    """The entry of LLaMA-Factory's ``dataset_info.json`` for a file of rows."""
    columns = {"messages": "messages"}
    if kind is Tree:
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {
        "file_name": path.name,
        "formatting": "sharegpt",
        "columns": columns,
        "tags": {**tags, "system_tag": "system"},
    }
    return {file_name(path.name.partition(".")[0]): {**entry, **({"ranking": True} if kind is Tree else {})}}


# --- files


def write_form(path: Path, form: Form, rows: Iterable[dict[str, Any]], kind: type) -> tuple[int, list[Path]]:
    """Write rows of a form, and what its reader wants beside them; how many rows, and all files.

    LLaMA-Factory gets a ``dataset_info.json`` in the same folder, to which other data sets that stand there are kept;
    OpenAI's rows leave weight, stream and source to ``NAME.provenance.jsonl``. ``.parquet`` writes Parquet. Raises
    DataError if a file is to be Parquet that cannot be, or the other way round.
    """
    if (path.suffix == ".parquet") != (form == "verl"):
        name = path.with_suffix(".parquet" if form == "verl" else ".jsonl")
        raise DataError(f"the form {form} is no {path.suffix or 'such'} file", str(path), f"write {name}")
    if form == "verl":
        return _write_parquet(path, list(rows)), [path]
    if form == "openai":
        made = list(rows)
        beside = path.with_name(f"{path.stem}.provenance.jsonl")
        write_rows(beside, ({"row": i, **row.pop("_rest")} for i, row in enumerate(made, 1)))
        return write_rows(path, made), [path, beside]
    n = write_rows(path, rows)
    if form != "llama-factory":
        return n, [path]
    info = path.with_name("dataset_info.json")
    known = json.loads(info.read_text("utf-8")) if info.is_file() else {}
    part = info.with_name(info.name + ".part")
    part.write_text(json.dumps({**known, **dataset_info(path, kind)}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    part.replace(info)
    return n, [path, info]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write JSON lines, whole or not at all; how many."""
    part, n = path.with_suffix(path.suffix + ".part"), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
            n += 1
    part.replace(path)
    return n


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        do = "pip install 'vivavoce[train]'"
        raise MissingDependency("Parquet files need the package pyarrow", str(path), do) from error
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), part)
    part.replace(path)
    return len(rows)
