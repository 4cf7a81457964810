"""A scorer with another tokenizer: its opinion of the student's tokens, where the two cut one text differently.

::

    student   caf | é | !         a group of one token on either side: two distributions over the tokens that both
    teacher   c | afé | !         vocabularies spell, and one bucket for the rest, compared by the objective itself
              [ group ] [group]   any other group: log q(span) - log p(span), with the gradient of reverse KL

The teacher reads the same text, in its own tokens. Ours: the paper (arXiv:2605.01347) needs one vocabulary for all.
Differs from TRL's GOLD: nothing is sorted by probability, and what does not match is kept in a bucket.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vivavoce.records import View
from vivavoce.train.alignment import VocabularyMap, groups, span_logprobs, token_bytes
from vivavoce.train.divergences import distillation_loss, policy_gradient
from vivavoce.train.objective import Objective
from vivavoce.train.scorers import Action, OpenScorer


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """How the tokens of two tokenizers are compared. Made once for each such scorer."""

    scorer: OpenScorer
    student: PreTrainedTokenizerBase
    map: VocabularyMap
    place: Tensor
    """Shape (V,): where a student's id stands among the matched tokens, M for the rest bucket."""

    @classmethod
    def of(cls, scorer: OpenScorer, student: PreTrainedTokenizerBase, columns: int, end: int | None) -> Foreign:
        """Raises DataError if the two vocabularies share nothing. ``end`` is the student's end of turn."""
        ends = None if end is None or scorer.marks.end < 0 else (end, scorer.marks.end)
        matched = VocabularyMap.of(student, scorer.tokenizer, ends=ends)
        place = torch.full((columns,), len(matched.student_ids))
        place[matched.student_ids] = torch.arange(len(matched.student_ids))
        return cls(scorer, student, matched, place)

    def read(self, views: Sequence[View], actions: Sequence[Action]) -> Reading:
        """Let the scorer go over the actions' text, action after action. Raises DataError where bytes differ."""
        theirs, pair, spans = [], list[int](), list[tuple[range, range]]()
        ours_at = theirs_at = 0
        for action in actions:
            ours = token_bytes(self.student, action.ids)
            ids = list(self.scorer.tokenizer(b"".join(ours).decode(), add_special_tokens=False)["input_ids"])
            if action.finished:
                ids.append(self.scorer.marks.end)
            for group in groups(ours, token_bytes(self.scorer.tokenizer, ids)):
                mine = range(ours_at + group.student.start, ours_at + group.student.stop)
                its = range(theirs_at + group.teacher.start, theirs_at + group.teacher.stop)
                single = len(mine) == len(its) == 1
                pair += [its.start] if single else [-1] * len(mine)
                if not single:
                    spans.append((mine, its))
            ours_at, theirs_at = ours_at + len(action.ids), theirs_at + len(ids)
            theirs.append(action._replace(ids=tuple(ids)))
        hidden = self.scorer.hidden(views, theirs)
        targets = torch.tensor([i for a in theirs for i in a.ids], device=hidden.device)
        return Reading(self, hidden, targets, np.array(pair), spans)


@dataclass(slots=True, eq=False)
class Reading:
    """What a foreign scorer found in one update's actions."""

    foreign: Foreign
    hidden: Tensor
    """Shape (its tokens, H)."""
    targets: Tensor
    pair: np.ndarray
    """Per student token: the scorer's token that it is compared with alone, or -1."""
    spans: list[tuple[range, range]]
    """The other groups: student tokens, scorer tokens."""

    @torch.no_grad()
    def ratios(self, log_q: Tensor, tokens: np.ndarray, size: int, columns: int) -> tuple[Tensor, Tensor]:
        """For each of ``tokens`` (indices over all actions): log q - log p of its group, and the group's length.

        ``log_q`` holds the student's log-probabilities of these tokens; groups lie in one packed row as a whole.
        """
        here = {int(t): i for i, t in enumerate(tokens)}
        mine = [(ours, theirs) for ours, theirs in self.spans if ours.start in here]
        ratio, length = torch.zeros_like(log_q), torch.ones_like(log_q)
        if not mine:
            return ratio, length
        places = [torch.tensor([here[t] for t in ours], device=log_q.device) for ours, _ in mine]
        q = torch.stack([log_q[place].sum() for place in places])
        wanted = torch.tensor([t for _, theirs in mine for t in theirs], device=log_q.device)
        p = []
        for part in wanted.split(size):
            logits = self.foreign.scorer.logits(self.hidden[part], self.foreign.scorer.columns)
            p.append(torch.log_softmax(logits.float(), -1).gather(1, self.targets[part, None])[:, 0])
        ends = np.cumsum([0, *(len(theirs) for _, theirs in mine)])
        spans = [range(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        for place, value in zip(places, q - span_logprobs(torch.cat(p), spans).to(q.dtype), strict=True):
            ratio[place], length[place] = value, float(len(place))
        return ratio, length

    def loss(
        self, logits: Tensor, sampled: Tensor, tokens: np.ndarray, ratio: Tensor, length: Tensor, how: Objective
    ) -> Tensor:
        """The objective at some student tokens, shape (n,), with gradient to ``logits`` (n, V)."""
        pair = self.pair[tokens]
        values = logits.new_zeros(len(tokens), dtype=torch.float32)
        alone = torch.from_numpy(np.flatnonzero(pair >= 0)).to(logits.device)
        if len(alone):
            rows = torch.from_numpy(pair[pair >= 0]).to(logits.device)
            theirs = self.foreign.scorer.logits(self.hidden[rows], self.foreign.scorer.columns).float()
            q, p = self.foreign.map.shared(logits[alone].float() / how.temperature, theirs / how.temperature)
            place = self.foreign.place.to(logits.device)[sampled[alone]]
            same = how.model_copy(update={"temperature": 1.0, "top_k": None})
            values = values.index_put((alone,), distillation_loss(q, [p], q.new_ones(len(q), 1).detach(), place, same))
        spread = torch.from_numpy(np.flatnonzero(pair < 0)).to(logits.device)
        if len(spread):
            log_q = torch.log_softmax(logits[spread].float(), -1).gather(1, sampled[spread, None])[:, 0]
            a = ratio[spread]
            moved = policy_gradient(log_q, log_q.detach() - a) - a + a / length[spread]
            values = values.index_put((spread,), moved)
        return values


__all__ = ["Foreign", "Reading"]
