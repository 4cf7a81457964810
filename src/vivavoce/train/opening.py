"""Opens the scorers of an on-policy training, and has them keep the scores of answers that come round again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from vivavoce.agents.rendering import rendering
from vivavoce.errors import RecipeError
from vivavoce.train.alignment import rows_kept, same_tokenizer
from vivavoce.train.foreign import ForeignScorer
from vivavoce.train.objective import OnPolicySettings
from vivavoce.train.prepared import Updates
from vivavoce.train.scorers import Answer, LocalScorer, OpenScorer, open_scorer
from vivavoce.train.scoring import bare
from vivavoce.train.served import ServedScorer, open_served

logger = logging.getLogger(__name__)


def open_scorers(student: Any, tokenizer: Any, settings: OnPolicySettings) -> list[OpenScorer]:
    """The scorers, opened, on the CPU as yet. One that has another tokenizer than the student is compared by bytes.

    Raises RecipeError for a scorer that cannot be opened, or cannot be compared as the objective wants it.
    """
    rows_kept(int(bare(student).get_output_embeddings().weight.shape[0]), tokenizer, "student")
    end, opened = rendering(tokenizer, settings.template).closing[-1], list[OpenScorer]()
    for spec in settings.scorers:
        one = open_served(spec, settings) if spec.elsewhere else open_scorer(spec, settings, (student, tokenizer))
        reasons = same_tokenizer(tokenizer, one.tokenizer, (end, one.marks.end))
        if settings.objective.divergence == "fixed_sign" and (reasons or isinstance(one, ServedScorer)):
            what = f"scorer {spec.name} gives no sign of its own: it has another tokenizer, or is behind a server"
            raise RecipeError(what, "objective.divergence", "use local scorers of the student's family, or log_ratio")
        if not reasons:
            opened.append(one)
        elif isinstance(one, ServedScorer):
            what = f"scorer {spec.name} is behind a server and has another tokenizer ({reasons[0]})"
            raise RecipeError(what, "scorers", "serve a model of the student's family, or score locally")
        elif settings.objective.aggregate != "sum":
            what = f"scorer {spec.name} has another tokenizer ({reasons[0]}): there is nothing to merge with"
            raise RecipeError(what, "objective.aggregate", "use aggregate: sum, or scorers of the student's family")
        elif settings.objective.by_token != "none":
            what = f"scorer {spec.name} has another tokenizer ({reasons[0]}): its tokens are not the student's"
            raise RecipeError(what, "objective.by_token", "use by_token: none, or scorers of the student's family")
        else:
            logger.warning("scorer %s has another tokenizer (%s): compared by bytes", spec.name, reasons[0])
            opened.append(ForeignScorer(one, tokenizer, end))
    return opened


def keep_scores(scorers: Sequence[OpenScorer], steps: Updates, settings: OnPolicySettings) -> None:
    """Have local scorers score recorded answers that will come round again, if memory is enough to keep the scores."""
    states = steps.states
    answers = [Answer(i, ids, on_policy=False) for i, p in enumerate(states) for ids in dict.fromkeys(p.recorded)]
    if len(steps.order) / steps.devices * settings.rollouts * (1 - settings.on_policy) <= len(answers):
        return
    local = {k: s for k, s in enumerate(scorers) if type(s) is LocalScorer and s.frozen}
    needed = sum(len(a.ids) for a in answers) * sum(s.row_bytes for s in local.values()) / 2**20
    if needed > settings.score_memory:
        what = "teachers go over recorded answers in every epoch: score_memory is %.0f MiB, to keep all takes %.0f"
        logger.warning(what, settings.score_memory, needed)
        return
    for k, scorer in local.items():
        scorer.keep([p.state.views[k] for p in states], answers)


__all__ = ["keep_scores", "open_scorers"]
