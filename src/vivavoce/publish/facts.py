"""The things to publish, and the sources of their cards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vivavoce.errors import DataError
from vivavoce.files import file_name
from vivavoce.report.sources import Sources

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")


@dataclass(frozen=True)
class PublishChoices:
    """The user's choices for the publication."""

    to: str
    """``USER/NAME``: the model's repository; the data set's is called ``USER/NAME-data``."""
    arm: str = ""
    seed: int | None = None
    base: str = ""
    """The Hub's id of the model that the student started from, where the run knows a folder only."""
    licence: str = ""
    terms_checked: bool = False
    """Whether the user says that the teachers' terms allow it."""
    model: bool = True
    data: bool = True


@dataclass(frozen=True)
class Facts:
    """The sources of the cards."""

    sources: Sources
    wanted: PublishChoices
    arm: str
    seed: int
    checkpoint: Path
    recipe: dict[str, Any]
    """The recipe without names of this machine."""

    @property
    def results(self) -> dict[str, Any]:
        assert self.sources.results is not None, "no results"
        return self.sources.results

    @property
    def adapter(self) -> bool:
        return (self.checkpoint / "adapter_config.json").is_file()

    @property
    def quantised(self) -> str:
        """The kind of 4 bits of the weights that the adapter was trained beside, say nf4; empty if they were whole."""
        return str(self.recipe.get("student", {}).get("quantise") or "") if self.adapter else ""

    @property
    def base(self) -> str:
        """The Hub's id of the model that the student started from; empty if it is not known."""
        named = str(self.sources.recipe.get("student", {}).get("model", ""))
        if self.wanted.base:
            return self.wanted.base
        return named if _on_the_hub(named) else ""


def facts_of(run: Path, wanted: PublishChoices) -> Facts:
    """The sources of the cards. Raises DataError as :func:`prepare` does."""
    sources = Sources(run)
    if sources.results is None:
        raise DataError("the run has no results yet", str(run), "finish it: `viva run` with its folder goes on")
    arm = _arm(sources, wanted.arm)
    seed = wanted.seed if wanted.seed is not None else int((sources.recipe.get("seeds") or [0])[0])
    return Facts(sources, wanted, arm, seed, _checkpoint(sources, arm, seed), public(sources.recipe))


def _on_the_hub(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and "/" in name and not Path(name).exists()


def _arm(sources: Sources, named: str) -> str:
    results = sources.results or {}
    there = [
        arm["name"] for arm in results.get("arms", ()) if arm.get("family") == "student" and arm["name"] != "student"
    ]
    arm = named or str(results.get("main") or (there[-1] if there else ""))
    if arm not in there:
        raise DataError(f"the run trained no arm `{arm}`", "--arm", f"name one of these: {', '.join(there) or 'none'}")
    return arm


def _checkpoint(sources: Sources, arm: str, seed: int) -> Path:
    named = (sources.results or {}).get("students", {}).get(arm, {}).get(str(seed))
    first = sources.checkpoint(arm)
    places = [sources.path / named] if named else [sources.path / "checkpoints" / f"{file_name(arm)}-{seed}"]
    places += [first] if first is not None and first.name.endswith(f"-{seed}") else []
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise DataError(
            f"there is no student of `{arm}` with seed {seed}", str(places[0]), "name another --arm or --seed"
        )
    return folder


def public(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without names of this machine: whole paths are cut to their last name, addresses of a server of one's
    own are left out.
    """

    def clean(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: clean(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [clean(v, key) for v in value]
        if isinstance(value, str) and key in ("base_url", "url") and not _known_host(value):
            return "(a server of the author's own)"
        if isinstance(value, str) and (value.startswith(("/", "~")) or re.match(r"[A-Za-z]:\\", value)):
            return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        return value

    return clean(dict(recipe))


def _known_host(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return (
        url.startswith("https://")
        and "." in host
        and not re.fullmatch(r"[0-9.]+|.*\.(?:local|lan|internal|corp)", host)
    )


__all__ = ["Facts", "PublishChoices", "facts_of", "public"]
