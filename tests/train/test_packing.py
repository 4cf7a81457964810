"""A packed trie must be the same rows: same tokens, same ancestors, same log-probabilities."""

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.students import cases, tiny_model
from torch.nn.attention.flex_attention import create_block_mask

from vivavoce.train import attention
from vivavoce.train.attention import flex_mask, mask_blocks, plan, trie_mask
from vivavoce.train.packing import blocks, pack, rows_of, segments
from vivavoce.train.scoring import Method, attending, logprobs
from vivavoce.train.tokens import ScoredRow


@st.composite
def rows(draw: st.DrawFn, alphabet: int = 3, most: int = 8) -> list[ScoredRow]:
    """Rows over few symbols, so that they share prefixes, repeat each other and end inside each other."""
    values = []
    row = st.lists(st.integers(0, alphabet - 1), min_size=2, max_size=9)
    for ids in draw(st.lists(row, min_size=1, max_size=most)):
        values.append(ScoredRow(tuple(ids), draw(st.integers(1, len(ids) - 1))))
    return values


@cases
@given(rows())
def test_every_row_can_be_read_back(given_rows: list[ScoredRow]):
    packed = pack(given_rows)
    for row, answer in zip(given_rows, packed.answers, strict=True):
        path = [int(answer[-1])]
        while packed.parents[path[-1]] >= 0:
            path.append(int(packed.parents[path[-1]]))
        path.reverse()
        assert tuple(packed.input_ids[path]) == row.ids
        assert packed.position_ids[path].tolist() == list(range(len(row.ids)))
        assert tuple(packed.input_ids[answer]) == row.completion


@cases
@given(rows())
def test_every_shared_token_is_there_once(given_rows: list[ScoredRow]):
    prefixes = {row.ids[:n] for row in given_rows for n in range(1, len(row.ids) + 1)}
    assert len(pack(given_rows)) == len(prefixes)


@cases
@given(rows())
def test_the_mask_is_the_ancestors_in_the_trie(given_rows: list[ScoredRow]):
    packed = pack(given_rows)
    wanted = np.zeros((len(packed), len(packed)), bool)
    for token in range(len(packed)):
        at = token
        while at >= 0:
            wanted[token, at] = True
            at = int(packed.parents[at])
    assert np.array_equal(trie_mask(torch.from_numpy(packed.ends)).numpy(), wanted)


@cases
@given(rows(), st.sampled_from([0, 4, 10**6]))
def test_the_blocks_see_exactly_the_mask(given_rows: list[ScoredRow], overhead: int):
    packed = pack(given_rows)
    seen = np.zeros((len(packed), len(packed)), bool)
    covered = []
    for block in blocks(packed.ends, overhead):
        covered.extend(range(block.start, block.stop))
        queries = np.arange(block.start, block.stop)
        for a, b in (*block.context, (block.start, block.stop)):
            keys = np.arange(a, b)
            allowed = keys <= queries[:, None]
            if not block.causal:
                allowed &= queries[:, None] < packed.ends[keys]
            seen[np.ix_(queries, keys)] = allowed
    assert covered == list(range(len(packed)))
    assert np.array_equal(seen, trie_mask(torch.from_numpy(packed.ends)).numpy())


@cases
@given(rows(), st.randoms())
def test_the_order_of_rows_does_not_change_the_packing(given_rows: list[ScoredRow], random):
    order = random.sample(range(len(given_rows)), len(given_rows))
    packed, second = pack(given_rows), pack([given_rows[i] for i in order])
    assert np.array_equal(packed.input_ids, second.input_ids)
    assert np.array_equal(packed.ends, second.ends)
    for place, i in enumerate(order):
        assert np.array_equal(packed.answers[i], second.answers[place])


@cases
@given(rows(alphabet=4), st.sampled_from([0, 500, 2**20]), st.sampled_from([0, 2048]))
def test_packed_log_probabilities_and_gradients_are_those_of_row_by_row(
    given_rows: list[ScoredRow], short: int, overhead: int
):
    """However the row is cut, and whichever of the runs are attended to together."""
    model = tiny_model(num_hidden_layers=1)
    packed = pack(given_rows)
    outcomes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "SHORT", short)
        patch.setattr(attention, "blocks", lambda ends: blocks(ends, overhead))
        for method in (Method("blocks"), Method("rows", chunked=False)):
            model.zero_grad()
            with attending(model, method):
                values = logprobs(model, packed, method)
                (values * torch.arange(1, len(values) + 1)).sum().backward()
            outcomes.append((values.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(outcomes[0][0], outcomes[1][0], rtol=1e-5, atol=1e-5)
    # Some gradients vanish in exact arithmetic (attention over equal tokens): what is left of them is rounding of the
    # whole, so the whole is their measure.
    whole = torch.stack([gradient.norm() for gradient in outcomes[1][1]]).norm()
    for packed_grad, row_grad in zip(outcomes[0][1], outcomes[1][1], strict=True):
        assert (packed_grad - row_grad).norm() <= 1e-4 * row_grad.norm() + 1e-5 * whole


def test_a_radix_trie_has_as_many_segments_as_branches():
    packed = pack([ScoredRow((1, 2, 3, 4), 2), ScoredRow((1, 2, 5), 2), ScoredRow((1, 2, 3, 6), 2)])
    assert segments(packed.ends) == [0, 2, 3, 4, 5, 6]


def test_a_large_tree_costs_far_less_than_its_square():
    stem = tuple(range(1000))
    packed = pack([ScoredRow((*stem, *(2000 + 300 * i + j for j in range(256))), 1000) for i in range(4)])
    cost = sum((b.stop - b.start) * (b.stop - b.start + sum(y - x for x, y in b.context)) for b in blocks(packed.ends))
    assert len(packed) == 2024
    assert cost == 1000**2 + 4 * 256 * 1256
    assert cost < len(packed) ** 2 / 1.7


def test_small_trees_stay_together_and_apart_from_other_rows_where_it_pays():
    tiny = pack([ScoredRow((i, j, 7), 1) for i in range(3) for j in range(3)])
    assert len(blocks(tiny.ends)) == 1
    long = pack([ScoredRow((i, *range(600)), 1) for i in range(3)])
    assert len(blocks(long.ends)) == 3


@cases
@given(st.lists(rows(most=4), min_size=1, max_size=6), st.integers(2, 40))
def test_trees_share_rows_within_the_budget(trees: list[list[ScoredRow]], budget: int):
    sizes = [len(pack(tree)) for tree in trees]
    split = rows_of(trees, sizes, budget)
    assert sorted(i for row in split for i in row) == list(range(len(trees)))
    for row in split:
        assert len(row) == 1 or len(pack([r for i in row for r in trees[i]])) <= budget


def test_masks_of_a_plan_are_additive_and_only_where_needed():
    packed = pack([ScoredRow((1, 2, 3, 4), 2), ScoredRow((1, 2, 5, 6), 2)])
    made = plan(packed, torch.float32, torch.device("cpu"), 64)
    (mask,) = made.masks
    assert mask is not None
    assert torch.equal(mask == 0, trie_mask(torch.from_numpy(packed.ends)))


def test_short_runs_share_a_call_and_long_ones_have_their_own():
    short = [ScoredRow((i, *range(60 + i % 3)), 1) for i in range(40)]
    long = [ScoredRow((99, *range(300)), 1)]
    made = plan(pack(short + long), torch.float32, torch.device("cpu"), 64)
    assert [sum(keys) > 0 for keys in made.keys if keys] == [True]
    assert sum(len(batch.queries) for batch in made.batches) == 40
    real = sum(len(row.ids) ** 2 for row in short)
    assert sum(batch.mask.numel() for batch in made.batches) <= 1.5 * real
    assert len(made.batches) <= 3
    wide = plan(pack(short + long), torch.float32, torch.device("cpu"), 4096)
    assert not wide.batches, "there a call is nothing beside its products"


@cases
@given(st.lists(rows(most=4), min_size=1, max_size=6), st.integers(1, 9))
def test_blocks_of_the_mask_are_those_that_its_pairs_make(trees: list[list[ScoredRow]], size: int):
    packed = pack([row for tree in trees for row in tree])
    count = -(-len(packed) // size)
    seen = torch.zeros(count * size, count * size, dtype=torch.bool)
    seen[: len(packed), : len(packed)] = trie_mask(torch.from_numpy(packed.ends))
    seen[len(packed) :] = seen[len(packed) - 1]  # rows that no query has count for nothing
    cut = seen.reshape(count, size, count, size).transpose(1, 2).flatten(2)
    partial, full = mask_blocks(packed.ends, size)
    assert np.array_equal(full, cut.all(2).numpy() & ~np.eye(count, dtype=bool))
    assert np.array_equal(partial | full, cut.any(2).numpy())


def test_flex_attentions_mask_holds_what_it_would_find_itself():
    packed = pack([ScoredRow((*range(150), i, *range(i, i + 90)), 150) for i in range(3)])
    made, mask = flex_mask(packed, torch.device("cpu")), trie_mask(torch.from_numpy(packed.ends))
    whole = create_block_mask(lambda b, h, q, k: mask[q, k], None, None, len(packed), len(packed), device="cpu")
    assert torch.equal(made.to_dense(), whole.to_dense())
    assert made.seq_lengths == whole.seq_lengths


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention is used on CUDA only")
def test_flex_attention_scores_like_row_by_row():
    model = cast(torch.nn.Module, tiny_model(head_dim=16)).cuda()
    packed = pack([ScoredRow((*range(150), i, *range(i, i + 90)), 150) for i in range(3)])
    assert flex_mask(packed, torch.device("cuda")).shape[-1] == len(packed)
    with torch.no_grad(), attending(model, Method("flex")):
        flex = logprobs(model, packed, Method("flex"))
    torch.testing.assert_close(flex, logprobs(model, packed, Method("rows")), rtol=1e-3, atol=1e-3)
