"""A scorer with another tokenizer, which cuts the student's text into other tokens.

::

    student   caf | é | !         a group of one token on either side: two distributions over the tokens that both
    teacher   c | afé | !         vocabularies spell, and one bucket for the rest, compared by the objective itself
              [ group ] [group]   any other group: log q(span) - log p(span), with the gradient of reverse KL

The teacher reads the same text, in its own tokens. Ours: the paper (arXiv:2605.01347) needs one vocabulary for all.
Differs from TRL's GOLD: nothing is sorted by probability, and tokens that do not match are kept in a bucket.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vivavoce.agents.rendering import rendering
from vivavoce.errors import DataError
from vivavoce.records import View
from vivavoce.train.alignment import VocabularyMap, groups, span_logprobs, token_bytes
from vivavoce.train.divergences import distillation_loss, policy_gradient
from vivavoce.train.objective import Objective
from vivavoce.train.scorers import Answer, LocalScorer
from vivavoce.train.scoring import chunk_rows


class ForeignScorer(LocalScorer):
    """A scorer in this process that has another tokenizer than the student. The two vocabularies are matched once.

    ``ours`` is the student's tokenizer, ``end`` its end of turn. Raises DataError if the two vocabularies share
    nothing.
    """

    def __init__(self, scorer: LocalScorer, ours: PreTrainedTokenizerBase, end: int) -> None:
        super().__init__(scorer.spec, scorer.model, scorer.tokenizer, scorer.settings)
        self.load = scorer.load
        self.ours = ours
        self.map = VocabularyMap.of(ours, self.tokenizer, ends=(end, self.marks.end))
        matched = self.map.student_ids
        self.place = torch.full((max(ours.get_vocab().values()) + 1,), len(matched))
        """Shape (V,): the place of a student's id among the matched tokens, M for the rest bucket."""
        self.place[matched] = torch.arange(len(matched))

    def read(self, views: Sequence[View], answers: Sequence[Answer]) -> ForeignTargets:
        """Let the scorer score the answers' text, answer after answer.

        It leaves out answers that its tokenizer does not give back byte by byte, for example because it composes
        characters (NFC) or has none for them: it would score another text.
        """
        theirs, pair, spans = list[Answer](), list[int](), list[tuple[range, range]]()
        left_out = set[int]()
        ours_at = theirs_at = 0
        for i, answer in enumerate(answers):
            ours = token_bytes(self.ours, answer.ids)
            try:
                ids = self._tokens(b"".join(ours).decode(), answer.finished)
                matched = groups(ours, token_bytes(self.tokenizer, ids))
            except DataError:
                left_out.add(i)
                pair += [-1] * len(answer.ids)
                ours_at += len(answer.ids)
                continue
            for group in matched:
                covered = range(ours_at + group.student.start, ours_at + group.student.stop)
                its = range(theirs_at + group.teacher.start, theirs_at + group.teacher.stop)
                single = len(covered) == len(its) == 1
                pair += [its.start] if single else [-1] * len(covered)
                if not single:
                    spans.append((covered, its))
            ours_at, theirs_at = ours_at + len(answer.ids), theirs_at + len(ids)
            theirs.append(answer._replace(ids=tuple(ids)))
        hidden = self.hidden(views, theirs)
        targets = torch.tensor([i for a in theirs for i in a.ids], device=hidden.device)
        return ForeignTargets(self, hidden, targets, np.array(pair), spans, frozenset(left_out))

    def _tokens(self, text: str, finished: bool) -> list[int]:
        form = rendering(self.tokenizer, self.spec.chat_template_kwargs)
        return [*form.text_ids(text), *(form.closing if finished else ())]


class ForeignTargets:
    """A foreign scorer's predictions for one update's answers.

    ``hidden`` (its tokens, H) and ``targets`` are of the scorer's own tokens. ``pair`` says for each student token
    which of them it is compared with alone, or -1; ``spans`` are the other groups: student tokens, scorer tokens.
    Tokens of answers that are left out are in neither, and are compared to 0.
    """

    def __init__(
        self,
        scorer: ForeignScorer,
        hidden: Tensor,
        targets: Tensor,
        pair: np.ndarray,
        spans: list[tuple[range, range]],
        left_out: frozenset[int],
    ) -> None:
        self.scorer, self.hidden, self.targets, self.pair, self.spans = scorer, hidden, targets, pair, spans
        self.left_out = left_out
        self._ratio = torch.zeros(len(pair), device=hidden.device)
        """Shape (student tokens,): log q - log p of the token's group, for tokens of the row that was begun."""
        self._length = torch.ones(len(pair), device=hidden.device)
        """Student tokens of that group."""

    @torch.no_grad()
    def begin(self, tokens: np.ndarray, log_q: Callable[[], Tensor]) -> None:
        """Compare the groups that lie in a packed row, which has each as a whole."""
        here = {int(t): i for i, t in enumerate(tokens)}
        within = [(ours, theirs) for ours, theirs in self.spans if ours.start in here]
        if not within:
            return
        wanted = torch.tensor([t for _, theirs in within for t in theirs], device=self.hidden.device)
        p = []
        for part in wanted.split(chunk_rows(self.scorer.columns, wanted.device)):
            logits = self.scorer.logits(self.hidden[part])
            p.append(torch.log_softmax(logits.float(), -1).gather(1, self.targets[part, None])[:, 0])
        q, ends = log_q(), np.cumsum([0, *(len(theirs) for _, theirs in within)])
        spans = [range(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        for (ours, _), log_p in zip(within, span_logprobs(torch.cat(p), spans), strict=True):
            places = torch.tensor([here[t] for t in ours], device=q.device)
            self._ratio[ours.start : ours.stop] = q[places].sum() - log_p
            self._length[ours.start : ours.stop] = len(ours)

    def compare(self, logits: Tensor, tokens: np.ndarray, sampled: Tensor, objective: Objective) -> tuple[Tensor, None]:
        """The objective, as :class:`~vivavoce.train.scorers.PartTargets` says."""
        pair = self.pair[tokens]
        values = logits.new_zeros(len(tokens), dtype=torch.float32)
        alone = torch.from_numpy(np.flatnonzero(pair >= 0)).to(logits.device)
        if len(alone):
            rows = torch.from_numpy(pair[pair >= 0]).to(logits.device)
            theirs = self.scorer.logits(self.hidden[rows]).float()
            q, p = self.scorer.map.shared(logits[alone].float() / objective.temperature, theirs / objective.temperature)
            place = self.scorer.place.to(logits.device)[sampled[alone]]
            same = objective.model_copy(update={"temperature": 1.0, "top_k": None})
            values = values.index_put((alone,), distillation_loss(q, [p], q.new_ones(len(q), 1).detach(), place, same))
        spread = torch.from_numpy(np.flatnonzero(pair < 0)).to(logits.device)
        if len(spread):
            at = torch.from_numpy(tokens[pair < 0]).to(logits.device)
            log_q = torch.log_softmax(logits[spread].float(), -1).gather(1, sampled[spread, None])[:, 0]
            a = self._ratio[at]
            moved = policy_gradient(log_q, log_q.detach() - a) - a + a / self._length[at]
            values = values.index_put((spread,), moved)
        return values, None


__all__ = ["ForeignScorer", "ForeignTargets"]
