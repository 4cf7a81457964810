"""Train the schoolhouse from nothing: `python -m schoolhouse.build --out DIR [--seed 0] [--set code | halls]`."""

import argparse
from pathlib import Path

import torch

from schoolhouse import chains_build, code_build, halls_build
from vivavoce.schoolhouse import world

SETS = {"chains": chains_build.build, "code": code_build.build, "halls": halls_build.build}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the four models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", choices=list(SETS), default="chains", help="which models: see the README")
    parser.add_argument("--only", choices=["base", *world.NAMES], help="one part, to run parts side by side")
    parser.add_argument("--short", action="store_true", help="only part of the student's training, to test the builder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.short:
        chains_build.build_student(args.out, args.seed, shorten=chains_build.SHORT)
        return
    for part in [args.only] if args.only else ["base", *world.NAMES]:
        SETS[args.set](part, args.out, args.seed)


if __name__ == "__main__":
    main()
