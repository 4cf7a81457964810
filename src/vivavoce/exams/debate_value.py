"""The worth of a debate as supervision, before anything is trained on it.

If a transcript does not make verified answers likelier to the student's scorers, training on it will not pay. It also
counts which agents changed from wrong to right and back, and whether stated confidence means anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from vivavoce.graph import Graph
from vivavoce.records import View
from vivavoce.stats import auroc, mean_sd
from vivavoce.train.objective import OnPolicySettings, Scorer

_AT_ONCE = 64


def likelihood(
    spec: Scorer,
    items: Sequence[tuple[View, View, str]],
    settings: OnPolicySettings,
    advance: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Mean -log p of verified answers, in nats for a whole answer, to one scorer without and with the debate.

    ``items`` hold its plain view, its view of the debate, and the answer. ``likelier`` is the share of answers whose
    likelihood the debate raised.
    """
    import torch

    from vivavoce.train.scorers import Answer, LocalScorer, open_scorer
    from vivavoce.train.served import open_served
    from vivavoce.train.tokens import answer_ids

    scorer = open_served(spec, settings) if spec.elsewhere else open_scorer(spec, settings)
    if isinstance(scorer, LocalScorer):
        scorer.model.to("cuda" if settings.device == "auto" and torch.cuda.is_available() else "cpu")
    before, after = list[float](), list[float]()
    for start in range(0, len(items), _AT_ONCE):
        batch = items[start : start + _AT_ONCE]
        texts = [text for _, _, text in batch]
        ids_of_answers = [answer_ids(scorer.tokenizer, text, spec.chat_template_kwargs) for text in texts]
        actions = [Answer(i, tuple(ids)) for i, ids in enumerate(ids_of_answers)]
        for losses, views in ((before, [plain for plain, _, _ in batch]), (after, [shown for _, shown, _ in batch])):
            values = scorer.logprobs(views, actions)
            losses += [-float(part.sum()) for part in values.split([len(a.ids) for a in actions])]
        advance(len(batch))
    return {
        "answers": len(items),
        "nll_plain": round(mean_sd(before).mean, 4) if before else None,
        "nll_debate": round(mean_sd(after).mean, 4) if after else None,
        "likelier": round(sum(b > a for b, a in zip(before, after, strict=True)) / max(1, len(items)), 4),
    }


def flips(graphs: Sequence[Graph]) -> dict[str, dict[str, int]]:
    """Per round, how many answers went from wrong (W) or right (R) to wrong or right."""
    rounds: dict[str, Counter[str]] = {}
    for g in graphs:
        for _, r, change in g.transitions():
            rounds.setdefault(str(r), Counter())[change] += 1
    return {r: {change: counts[change] for change in ("WR", "RW", "WW", "RR")} for r, counts in sorted(rounds.items())}


def stated_confidence(graphs: Sequence[Graph]) -> dict[str, dict[str, Any]]:
    """Per round: share of answers with a stated confidence, its AUROC, and its expected calibration error (10 bins)."""
    rounds: dict[int, list[tuple[float, bool]]] = {}
    turns: Counter[int] = Counter()
    for g in graphs:
        for n in g.answers():
            turns[n.round] += 1
            if n.confidence is not None and n.correct is not None:
                rounds.setdefault(n.round, []).append((n.confidence, n.correct))
    result = {}
    for r, count in sorted(turns.items()):
        pairs = rounds.get(r, [])
        area = auroc([c for c, _ in pairs], [right for _, right in pairs]) if pairs else None
        result[str(r)] = {
            "stated": round(len(pairs) / count, 4),
            "auroc": None if area is None else round(area, 4),
            "calibration_error": round(calibration_error(pairs), 4) if pairs else None,
        }
    return result


def calibration_error(pairs: Sequence[tuple[float, bool]], bins: int = 10) -> float:
    """Expected calibration error: over equal-width bins, |mean confidence - share right|, weighted by their size.

    >>> calibration_error([(0.9, True), (0.9, False)])
    0.4
    """
    groups: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in pairs:
        groups.setdefault(min(bins - 1, int(confidence * bins)), []).append((confidence, right))
    gaps = [abs(sum(c for c, _ in group) - sum(right for _, right in group)) for group in groups.values()]
    return sum(gaps) / len(pairs)


__all__ = ["calibration_error", "flips", "likelihood", "stated_confidence"]
