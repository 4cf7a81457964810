"""Build the wheel and the source distribution, and try both as a stranger would: in an empty environment and folder.

    python tools/release.py            # for every Python from 3.11 to 3.13 that is installed
    python tools/release.py --light    # without torch: the command line, recipes and keys alone
    python tools/release.py --only 3.12

Tried are: the same files in both; a command line without extras; `viva run schoolhouse/demo`, shortened, to its report.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
PYTHONS = ("3.11", "3.12", "3.13")
SHORT = ("task.train=60", "task.test=40", "seeds=[0]", "arms=[debate_reflect]", "sft.max_steps=10", "dpo.max_steps=3")
NEEDED = (
    "vivavoce/recipes/schoolhouse/demo.yaml",
    "vivavoce/recipes/recipe.schema.json",
    "vivavoce/schoolhouse/weights/cyd/model.safetensors",
    "vivavoce/committee/prompts/general/answer.md",
    "vivavoce/agents/templates/plain.jinja",
)
"""Files that are no Python and must be in the wheel."""


def run(*command: str | Path, cwd: Path, quiet: bool = True) -> str:
    """Run a command and return what it prints; its output is shown and the release stops if it fails."""
    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, env=outside, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout if quiet else done.stdout + done.stderr


def build() -> tuple[Path, Path]:
    """Build the wheel and the source distribution in an empty dist/."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, cwd=ROOT)
    (wheel,), (source,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    return wheel, source


def files(wheel: Path) -> dict[str, int]:
    """The files of a wheel with their checksums, but for the record of them."""
    with zipfile.ZipFile(wheel) as inside:
        return {i.filename: i.CRC for i in inside.infolist() if not i.filename.endswith("RECORD")}


def check_contents(wheel: Path, source: Path, folder: Path) -> None:
    """The wheel has what runs need, and the source distribution builds the same wheel."""
    here = files(wheel)
    if missing := [name for name in NEEDED if name not in here]:
        sys.exit(f"the wheel lacks {', '.join(missing)}")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    (rebuilt,) = folder.glob("*.whl")
    if differs := set(here.items()) ^ set(files(rebuilt).items()):
        sys.exit(f"the source distribution builds another wheel: {sorted(name for name, _ in differs)[:5]}")


def interpreter(version: str) -> Path | None:
    """The Python of a version, on the path or among those of pyenv; None if there is none that runs."""
    there = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for path in (*there, shutil.which(f"python{version}")):
        if path and not subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode:
            return Path(path)
    return None


def try_light(python: Path, wheel: Path, folder: Path) -> None:
    """Install without extras, and use what needs none."""
    viva = environment(python, folder, [str(wheel)])
    empty = folder / "empty"
    empty.mkdir()
    for command in (("--version",), ("list", "recipes"), ("keys", "dpo.beta"), ("keys", "--schema")):
        run(viva, *command, cwd=empty)
    done = subprocess.run([viva, "run", "demo"], cwd=empty, capture_output=True, text=True, check=False)
    if done.returncode != 2 or "vivavoce[train]" not in done.stderr:
        sys.exit(f"a run without its packages does not say what to install:\n{done.stderr}")


def try_whole(python: Path, wheel: Path, folder: Path) -> None:
    """Install with what training needs, and run the demo, shortened, to its report."""
    viva = environment(python, folder, [f"{wheel}[train]"])
    empty = folder / "empty"
    empty.mkdir()
    changes = [part for change in SHORT for part in ("--set", change)]
    run(viva, "run", "schoolhouse/demo", *changes, cwd=empty)
    if not (empty / "runs" / "demo" / "report.html").is_file():
        sys.exit("the demo wrote no report")


def environment(python: Path, folder: Path, packages: Sequence[str]) -> Path:
    """An environment of its own with packages at the tested versions; its ``viva``."""
    place = folder / "env"
    run(python, "-m", "venv", place, cwd=folder)
    pip = (place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    pins = ROOT / "constraints.txt"
    if any("[" in package for package in packages):
        torch = next(line for line in pins.read_text("utf-8").splitlines() if line.startswith("torch=="))
        run(*pip, torch, "-c", pins, cwd=folder)
    run(*pip, "-c", pins, *packages, cwd=folder)
    return place / "bin" / "viva"


def main() -> int:
    """Build, check, try."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--light", action="store_true", help="without torch")
    options.add_argument("--only", choices=PYTHONS, help="this Python alone")
    asked = options.parse_args()
    wheel, source = build()
    with tempfile.TemporaryDirectory() as temporary:
        check_contents(wheel, source, Path(temporary))
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, and the same from {source.name}")
    wanted = [asked.only] if asked.only else PYTHONS
    for python in filter(None, map(interpreter, wanted)):
        for attempt in (try_light,) if asked.light else (try_light, try_whole):
            with tempfile.TemporaryDirectory() as temporary:
                attempt(python, wheel, Path(temporary))
            print(f"{python.name}: {attempt.__doc__.splitlines()[0].lower().rstrip('.')}: done", flush=True)
    if absent := [version for version in wanted if interpreter(version) is None]:
        print(f"not tried, for they are not here: Python {', '.join(absent)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
