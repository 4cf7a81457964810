"""A limit keeps a sample of a split, not its beginning: files often stand subject by subject."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.records import Problem
from vivavoce.tasks import open_task
from vivavoce.tasks.limits import sample

GROUPS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def problems(sizes: list[int]) -> list[Problem]:
    return [Problem(f"q{g}.{i}", "?", "1", f"group {g}") for g, n in enumerate(sizes) for i in range(n)]


@given(GROUPS, st.integers(1, 200), st.integers(0, 3))
def test_every_group_has_its_share_within_one_and_order_stays(sizes: list[int], limit: int, seed: int) -> None:
    every = problems(sizes)
    kept = sample(every, limit, seed)
    assert len(kept) == min(limit, len(every))
    assert kept == sorted(kept, key=every.index)
    counts, share = Counter(p.group for p in kept), min(1, limit / len(every))
    if len(sizes) == 2:  # divisor methods keep within one of every quota for two groups
        assert all(abs(counts[f"group {g}"] - n * share) <= 1 for g, n in enumerate(sizes))
    assert all(abs(counts[f"group {g}"] - n * share) <= len(sizes) for g, n in enumerate(sizes))


@given(GROUPS, st.integers(1, 100), st.integers(1, 100))
def test_a_higher_limit_keeps_what_a_lower_one_kept(sizes: list[int], limit: int, more: int) -> None:
    every = problems(sizes)
    few, many = sample(every, limit, 0), sample(every, limit + more, 0)
    assert {p.id for p in few} <= {p.id for p in many}


@given(st.permutations(problems([5, 3])), st.integers(1, 8))
def test_the_order_of_the_file_does_not_choose(every: list[Problem], limit: int) -> None:
    assert {p.id for p in sample(every, limit, 0)} == {p.id for p in sample(problems([5, 3]), limit, 0)}


def test_seeds_draw_otherwise_and_no_limit_keeps_all() -> None:
    every = problems([30])
    assert sample(every, 10, 0) == sample(every, 10, 0) != sample(every, 10, 1)
    assert sample(every, None, 0) == sample(every, 30, 0) == sample(every, 99, 0) == every


@pytest.fixture
def subjects(tmp_path: Path) -> dict[str, Any]:
    """A test file that stands subject by subject: 60, 30 and 10 questions."""
    rows = [
        {"subject": name, "question": f"{name} {i}?", "choices": ["a", "b"], "answer": 1}
        for name, n in (("algebra", 60), ("botany", 30), ("civics", 10))
        for i in range(n)
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"test_path": tmp_path / "test.jsonl", "train_path": tmp_path / "test.jsonl"}


def test_a_limit_of_a_benchmark_keeps_every_subject(subjects: dict[str, Any]) -> None:
    kept = open_task("mmlu", {**subjects, "test_limit": 20}).problems("test")
    assert Counter(p.group for p in kept) == {"algebra": 12, "botany": 6, "civics": 2}
    second = open_task("mmlu", {**subjects, "test_limit": 20, "seed": 1}).problems("test")
    assert Counter(p.group for p in second) == Counter(p.group for p in kept)
    assert [p.id for p in second] != [p.id for p in kept]


def test_the_first_ones_can_be_asked_for(subjects: dict[str, Any]) -> None:
    kept = open_task("mmlu", {**subjects, "test_limit": 20, "limit_takes": "first"}).problems("test")
    assert [p.question.partition("\n")[0] for p in kept] == [f"algebra {i}?" for i in range(20)]
