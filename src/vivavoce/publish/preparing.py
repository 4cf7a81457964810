"""The folders that are uploaded: a model with its card, a data set with its splits and its card, the report in both."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import yaml

from vivavoce.errors import DataError
from vivavoce.publish.cards import data_card, model_card
from vivavoce.publish.facts import Facts, PublishChoices, facts_of

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "preprocessor_config.json",
)  # fmt: skip
"""All else in a checkpoint (states of the optimiser, pickles, our own records) stays here."""


class Shipment(NamedTuple):
    """A folder and the repository that it is for."""

    folder: Path
    repository: str
    kind: str
    """``model`` or ``dataset``."""


def prepare(run: Path, wanted: PublishChoices) -> list[Shipment]:
    """Write everything that would be uploaded into ``RUN/publish``, in place of its content.

    Raises DataError if the run has not finished, the arm has no student, its weights are not safetensors, or the model
    of an adapter is not named.
    """
    if not _NAME.fullmatch(wanted.to):
        raise DataError(f"`{wanted.to}` is not the name of a repository", "--to", "write USER/NAME")
    facts, out = facts_of(run, wanted), run / "publish"
    if out.exists():
        shutil.rmtree(out)
    made = list[Shipment]()
    if wanted.model:
        made.append(Shipment(_model(facts, out / "model"), wanted.to, "model"))
    if wanted.data:
        made.append(Shipment(_data(facts, out / "data"), f"{wanted.to}-data", "dataset"))
    return made


def _model(facts: Facts, out: Path) -> Path:
    source = facts.checkpoint
    files = sorted({file for pattern in _MODEL_FILES for file in source.glob(pattern)})
    if not any(file.suffix == ".safetensors" for file in files):
        others = ", ".join(file.name for file in source.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        what = (
            f"the weights are not safetensors{f' but {others}' if others else ''}: such files can run code when opened"
        )
        raise DataError(what, str(source), "save them as safetensors")
    if facts.adapter and not facts.base:
        what = (
            f"the adapter is for {facts.sources.recipe.get('student', {}).get('model')}, which is not an id of the Hub"
        )
        raise DataError(what, str(source), "name it: --base OWNER/NAME")
    out.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, out / file.name)
    for name, key in (("config.json", "_name_or_path"), ("adapter_config.json", "base_model_name_or_path")):
        if (out / name).is_file():
            config = json.loads((out / name).read_text("utf-8"))
            if key in config:
                config[key] = facts.base
            (out / name).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (out / "README.md").write_text(model_card(facts), "utf-8")
    _beside(facts, out)
    return out


def _data(facts: Facts, out: Path) -> Path:
    """Rows that the arm, or what it started from, learnt from, as one configuration each; answers to the test as
    another."""
    out.mkdir(parents=True)
    configs: dict[str, str] = {}
    counts: dict[str, int] = {}
    for kind, split, folder in (
        ("rows", "train", facts.sources.path / "data"),
        ("answers", "test", facts.sources.path / "evaluations"),
    ):
        for file in sorted(folder.glob("*.jsonl")):
            if not file.stat().st_size:
                continue
            name = re.sub(r"[^A-Za-z0-9_-]", "_", file.stem) + ("" if kind == "rows" else "__answers")
            place = f"{kind}/{name}/{split}.jsonl"
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, out / place)
            configs[name] = place
            counts[name] = file.read_bytes().count(b"\n")
    if not configs:
        raise DataError("the run has no rows", str(facts.sources.path / "data"), "publish the model alone: --no-data")
    (out / "README.md").write_text(data_card(facts, configs, counts), "utf-8")
    _beside(facts, out)
    return out


def _beside(facts: Facts, out: Path) -> None:
    """The recipe and the report."""
    (out / "recipe.yaml").write_text(yaml.safe_dump(facts.recipe, sort_keys=False, allow_unicode=True), "utf-8")
    report = facts.sources.path / "report.html"
    if report.is_file():
        shutil.copyfile(report, out / "report.html")


__all__ = ["Shipment", "prepare"]
