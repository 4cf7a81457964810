"""An environment of verifiers up to 0.3 as a user writes one: a tool of plain Python, and a rubric."""

import verifiers as vf  # pyright: ignore[reportMissingImports]  (it runs where the package is)
from datasets import Dataset


def add(first: int, second: int) -> int:
    """Add two numbers.

    Args:
        first: One of them.
        second: The other one.
    """
    return first + second


def load_environment(tasks: int = 12) -> "vf.Environment":
    rows = [{"question": f"What is {n} and {n + 7}?", "answer": str(n + n + 7)} for n in range(10, 10 + tasks)]

    def right(completion, answer, **_) -> float:
        return float(answer in str(completion[-1].content))

    return vf.ToolEnv(
        dataset=Dataset.from_list(rows), tools=[add], rubric=vf.Rubric(funcs=[right], weights=[1.0]), max_turns=5
    )
