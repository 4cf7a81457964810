"""Batched decoding: equal to transformers' own, and every row alone with its seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessorList,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vivavoce.agents.batch import TokenPrompt
from vivavoce.agents.decode import Decoder, Interrupted
from vivavoce.agents.detokenise import Detokeniser
from vivavoce.records import Sampling
from vivavoce.schoolhouse.tokenizer import tokenizer as schoolhouse_tokenizer

TOKENIZER = schoolhouse_tokenizer()
EOS, PAD = cast(int, TOKENIZER.eos_token_id), cast(int, TOKENIZER.pad_token_id)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def decoder(model: Any) -> Decoder:
    return Decoder(model, TOKENIZER)


def sliding() -> PreTrainedModel:
    """A model whose layers see eight tokens back."""
    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        eos_token_id=EOS,
        pad_token_id=PAD,
        bos_token_id=None,
        initializer_range=0.2,
    )
    return MistralForCausalLM(config).eval()


def learned_positions() -> PreTrainedModel:
    torch.manual_seed(2)
    config = GPT2Config(
        vocab_size=len(TOKENIZER),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        initializer_range=0.3,
        eos_token_id=EOS,
        pad_token_id=PAD,
        bos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


def prompts_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(5, len(TOKENIZER), (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize("kind", ["rotary", "sliding", "learned"])
def test_greedy_equals_generate_token_for_token(kind: str, model: Any) -> None:
    net: Any = {"rotary": lambda: model, "sliding": sliding, "learned": learned_positions}[kind]()
    lengths, new = (3, 17, 9, 30, 1, 12, 25), 40
    rows = prompts_of(*lengths)
    width, pad, eos = max(lengths), PAD, EOS
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    config = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=pad, eos_token_id=eos)
    with torch.inference_mode():
        expected = net.generate(ids, attention_mask=mask, generation_config=config)[:, width:].tolist()
    decoded = Decoder(net, TOKENIZER).decode([TokenPrompt(row, Sampling(0.0, max_new_tokens=new), 0) for row in rows])
    for row, output in zip(expected, decoded, strict=True):
        count = row.index(eos) + 1 if eos in row else new
        assert output.usage.completion == count
        assert output.finish == ("stop" if eos in row else "length")
        assert output.text == TOKENIZER.decode(row[:count], skip_special_tokens=True)


def test_a_row_says_the_same_in_any_company(decoder: Decoder) -> None:
    samplings = [
        Sampling(0.0, max_new_tokens=30),
        Sampling(0.7, max_new_tokens=12),
        Sampling(1.0, 0.9, 40),
        Sampling(1.3, 0.3, 25, logprobs=True),
        Sampling(0.5, 1.0, 33, ("e", "T")),
        Sampling(1.0, 1.0, 1),
        Sampling(0.9, 0.8, 20, top_k=3),
        Sampling(0.0, 1.0, 28, repetition_penalty=1.4),
        Sampling(1.2, 1.0, 22, top_k=9, repetition_penalty=1.2, logprobs=True),
    ]
    lengths = (5 + 7 * i % 23 for i in range(18))
    mixed = [TokenPrompt(ids, samplings[i % 9], i) for i, ids in enumerate(prompts_of(*lengths))]
    together = decoder.decode(mixed)
    alone = [decoder.decode([prompt])[0] for prompt in mixed]
    backwards = decoder.decode(mixed[::-1])[::-1]
    for one, two, three in zip(together, alone, backwards, strict=True):
        assert one.text == two.text == three.text
        assert (one.finish, one.usage) == (two.finish, two.usage)
        assert [t.text for t in one.tokens or ()] == [t.text for t in two.tokens or ()]
        assert [t.logprob for t in one.tokens or ()] == pytest.approx([t.logprob for t in two.tokens or ()], abs=1e-4)


def test_seeds_differ_and_repeat(decoder: Decoder) -> None:
    [ids] = prompts_of(10)
    texts = [
        output.text for output in decoder.decode([TokenPrompt(ids, Sampling(1.0, 1.0, 20), s % 8) for s in range(16)])
    ]
    assert texts[:8] == texts[8:]
    assert len(set(texts)) == 8


def test_draws_follow_the_distribution(decoder: Decoder) -> None:
    [ids], count, temperature, top_p = prompts_of(6), 3000, 1.5, 0.6
    with torch.inference_mode():
        logits = decoder.model(torch.tensor([ids])).logits[0, -1]
    p, order = (logits / temperature).softmax(-1).sort(descending=True)
    kept = (p.cumsum(-1) - p) < top_p
    p = p[kept] / p[kept].sum()
    drawn = torch.tensor(decoder.draw([TokenPrompt(ids, Sampling(temperature, top_p, 1), s) for s in range(count)]))
    seen = torch.bincount(drawn[:, 0], minlength=len(logits))[order]
    assert seen[~kept].sum() == 0
    sigma = (p * (1 - p) / count).sqrt()
    assert ((seen[kept] / count - p).abs() < 4.5 * sigma).all()


@pytest.mark.parametrize("kind", ["rotary", "sliding", "learned"])
def test_what_is_drawn_is_what_processors_of_transformers_leave_token_for_token(kind: str, model: Any) -> None:
    """Rows of all kinds in one batch, one of which has more of one kind than there are tokens."""
    net: Any = {"rotary": lambda: model, "sliding": sliding, "learned": learned_positions}[kind]()
    settings = [  # temperature, top-p, top-k, penalty
        (0.7, 0.8, 20, 1.1),
        (1.5, 1.0, 4, 1.0),
        (1.5, 1.0, 0, 1.3),
        (2.0, 0.6, 5, 0.7),
        (1.0, 0.9, 0, 1.0),
        (1.0, 1.0, 10**6, 1.2),
        (3.0, 1.0, 1, 1.5),
    ]
    rows, new = prompts_of(3, 17, 9, 30, 1, 12, 25), 16
    wishes = [
        TokenPrompt(row, Sampling(t, p, new, top_k=k, repetition_penalty=r), seed)
        for seed, (row, (t, p, k, r)) in enumerate(zip(rows, settings, strict=True))
    ]
    for seed, (row, (t, p, k, r), ids) in enumerate(
        zip(rows, settings, Decoder(net, TOKENIZER).draw(wishes), strict=True)
    ):
        chances = torch.rand(new, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        left = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(r), TemperatureLogitsWarper(t)])
        if k:
            left.append(TopKLogitsWarper(k))
        left.append(TopPLogitsWarper(p))
        with torch.inference_mode():
            logits = net(torch.tensor([row + ids])).logits[0, len(row) - 1 : -1].float()
        for place, (token, z) in enumerate(zip(ids, logits, strict=True)):
            scores = left(cast(Any, torch.tensor([row + ids[:place]])), z[None])
            total = cast(torch.Tensor, scores)[0].double().softmax(-1).cumsum(-1)
            assert token == int(torch.searchsorted(total, chances[place] * total[-1], right=True)), (seed, place)


def test_a_penalised_greedy_row_says_what_generate_says(model: Any) -> None:
    rows, new = prompts_of(3, 17, 9), 30
    together = [TokenPrompt(row, Sampling(0.0, 1.0, new, repetition_penalty=1.5), 0) for row in rows]
    plain = Decoder(model, TOKENIZER).draw([TokenPrompt(row, Sampling(0.0, 1.0, new), 0) for row in rows])
    drawn = Decoder(model, TOKENIZER).draw(together)
    how = {"max_new_tokens": new, "do_sample": False, "pad_token_id": PAD, "eos_token_id": EOS}
    for row, ids, unpenalised in zip(rows, drawn, plain, strict=True):
        config = GenerationConfig(**how, repetition_penalty=1.5)
        with torch.inference_mode():
            expected = model.generate(torch.tensor([row]), generation_config=config)[0, len(row) :].tolist()
        assert ids == expected != unpenalised


def test_a_tiny_nucleus_is_greedy(decoder: Decoder) -> None:
    rows = prompts_of(8, 11)
    greedy = decoder.decode([TokenPrompt(row, Sampling(0.0, 1.0, 20), 1) for row in rows])
    narrow = decoder.decode([TokenPrompt(row, Sampling(2.0, 1e-9, 20), 1) for row in rows])
    assert [output.text for output in greedy] == [output.text for output in narrow]


def test_log_probabilities_equal_a_teacher_forced_forward(decoder: Decoder) -> None:
    rows = prompts_of(4, 21, 13)
    narrow = {"logprobs": True, "top_k": 8, "repetition_penalty": 1.3}
    wishes = [TokenPrompt(row, Sampling(0.8, 0.95, 30, **narrow), i) for i, row in enumerate(rows)]
    for row, ids, output in zip(rows, decoder.draw(wishes), decoder.decode(wishes), strict=True):
        assert output.tokens is not None
        ids = ids[: len(output.tokens)]
        with torch.inference_mode():
            logprobs = decoder.model(torch.tensor([row + ids])).logits[0, len(row) - 1 : -1].log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
        assert [token.logprob for token in output.tokens] == pytest.approx(expected, abs=1e-4)
        assert "".join(token.text for token in output.tokens) == output.text


def test_a_stop_string_ends_a_row_before_it_and_counts_what_it_took(decoder: Decoder) -> None:
    rows = prompts_of(9, 14, 6, 19)
    free = decoder.decode([TokenPrompt(row, Sampling(0.9, 1.0, 60, logprobs=True), i) for i, row in enumerate(rows)])
    for i, (row, output) in enumerate(zip(rows, free, strict=True)):
        middle = len(output.text) // 2
        stop = output.text[middle : middle + 3]
        sampling = Sampling(0.9, 1.0, 60, ("never said", stop), logprobs=True)
        [cut] = decoder.decode([TokenPrompt(row, sampling, i)])
        assert cut.text == output.text[: output.text.find(stop)]
        assert cut.finish == "stop"
        assert cut.tokens is not None
        assert "".join(token.text for token in cut.tokens) == cut.text
        assert output.tokens is not None
        spelled = [len("".join(token.text for token in output.tokens[:n])) for n in range(len(output.tokens) + 1)]
        assert cut.usage.completion == next(n for n, end in enumerate(spelled) if end >= len(cut.text) + len(stop))


def test_finished_rows_leave_the_batch(decoder: Decoder) -> None:
    sizes = list[int]()
    watch = decoder.model.register_forward_pre_hook(
        lambda _, __, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    ends, decoder.eos = decoder.eos, []
    try:
        limits = [4 * (i + 1) for i in range(8)]
        rows = prompts_of(*range(5, 13))
        wishes = [TokenPrompt(row, Sampling(0.0, 1.0, limit), 0) for row, limit in zip(rows, limits, strict=True)]
        outputs = decoder.decode(wishes)
        assert sizes == [8 - i // 4 for i in range(32)]
        assert [one.usage.completion for one in outputs] == limits
        assert [one.text for one in outputs] == [decoder.decode([wish])[0].text for wish in wishes]
    finally:
        watch.remove()
        decoder.eos = ends


@pytest.mark.parametrize("kind", ["rotary", "learned", "sliding"])
def test_whoever_joins_late_says_what_it_says_alone(kind: str, model: Any) -> None:
    net: Any = {"rotary": lambda: model, "sliding": sliding, "learned": learned_positions}[kind]()
    there = Decoder(net, TOKENIZER)
    wishes = [
        TokenPrompt(ids, Sampling(0.9 * (i % 2), 1.0, 3 + 7 * i % 31, logprobs=True), i, tag=i)
        for i, ids in enumerate(prompts_of(*(3 + 11 * i % 50 for i in range(40))))
    ]
    alone = [there.draw([wish])[0] for wish in wishes]
    waiting, ids_of, most = list(wishes), dict[object, list[int]](), list[int]()
    joined_others = list[bool]()

    def newcomers(under_way: Any) -> list[TokenPrompt]:
        most.append(len(under_way))
        joining = [waiting.pop() for _ in range(min(len(waiting), 8 - len(under_way)))]
        joined_others.append(bool(joining and under_way))
        return joining

    there.stream(newcomers, lambda prompt, ids, _: ids_of.update({prompt.tag: ids}))
    assert [ids_of[i] for i in range(40)] == alone
    assert max(most) <= 8
    assert any(joined_others) == (kind != "sliding")  # a sliding cache does not hold all keys, so nobody can join it


def test_a_late_row_joins_under_way_and_the_cache_stays_as_wide_as_its_longest_row(decoder: Decoder) -> None:
    shapes = list[tuple[int, int]]()
    watch = decoder.model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["attention_mask"].shape)), with_kwargs=True
    )
    ends, decoder.eos = decoder.eos, []
    try:
        first, late = (TokenPrompt(ids, Sampling(0.0, 1.0, 10), 0) for ids in prompts_of(30, 6))
        short = TokenPrompt(prompts_of(40)[0], Sampling(0.0, 1.0, 3), 0)
        coming = [[first, short], [], [], [late]]
        decoder.stream(lambda _: coming.pop(0) if coming else (), lambda *_: None)
    finally:
        watch.remove()
        decoder.eos = ends
    # prefill of two, the long one's two steps; then it leaves, the late one is prefilled, and both go on beside it
    assert shapes[:3] == [(2, 40), (2, 41), (2, 42)]
    assert shapes[3] == (1, 6)
    assert shapes[4:] == [(2, 33 + i) for i in range(7)] + [(1, 14), (1, 15)]


@pytest.mark.parametrize("remember", [0, 2**30, 60_000])
def test_a_shared_beginning_is_computed_once_and_changes_nothing(remember: int, model: Any) -> None:
    system, other, question = prompts_of(37, 21, 18)
    rows = [
        *([*system, *ids] for ids in prompts_of(5, 9, 40)),
        *([*system, *question, *ids] for ids in prompts_of(3, 17, 1)),
        *([*other, *ids] for ids in prompts_of(12, 30)),
        [*system, *question],
        *[prompts_of(48)[0]] * 3,
        prompts_of(4)[0],
    ]
    wishes = [TokenPrompt(ids, Sampling(0.8, 0.95, 20), i) for i, ids in enumerate(rows)]
    there = Decoder(model, TOKENIZER, remember)
    alone = [Decoder(model, TOKENIZER).draw([wish])[0] for wish in wishes]
    assert there.draw(wishes) == alone
    assert there.prefilled + there.reused == sum(map(len, rows))
    # beginnings are known by blocks of 16 tokens, and what a longer neighbour computes anyway is not copied
    assert there.reused > 0.4 * sum(map(len, rows))
    first = there.prefilled
    assert there.draw(wishes[::-1]) == alone[::-1]
    if remember == 2**30:
        assert there.prefilled - first < first / 2
    assert bool(there.prefixes.held) == bool(remember)
    assert there.prefixes.held <= remember


@pytest.mark.parametrize("kind", ["rotary", "sliding"])
def test_samples_of_one_prompt_compute_it_once(kind: str, model: Any) -> None:
    net: Any = {"rotary": lambda: model, "sliding": sliding}[kind]()
    shapes = list[tuple[int, int]]()
    watch = net.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    one, two = prompts_of(41, 40)
    wishes = [TokenPrompt(ids, Sampling(0.9, 1.0, 12), seed) for seed in range(6) for ids in (one, two)]
    there = Decoder(net, TOKENIZER)
    try:
        together = there.draw(wishes)
    finally:
        watch.remove()
    assert shapes[:2] == [(2, 41), (12, 1)]
    assert (there.prefilled, there.reused) == (81, 5 * 81)
    assert together == [Decoder(net, TOKENIZER).draw([wish])[0] for wish in wishes]
    assert len({tuple(ids) for ids in together}) > 6


def test_hashes_that_collide_are_no_beginning(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    monkeypatch.setattr("vivavoce.agents.decode.chain", lambda ids: [7] * (len(ids) // 16))
    wishes = [TokenPrompt(ids, Sampling(0.0, 1.0, 10), 0) for ids in prompts_of(33, 34, 50)]
    there = Decoder(model, TOKENIZER, 2**30)
    together = there.draw(wishes)
    monkeypatch.undo()
    assert together == [Decoder(model, TOKENIZER).draw([wish])[0] for wish in wishes]
    assert there.reused == 0


def test_decoding_can_be_interrupted(decoder: Decoder) -> None:
    calls = iter(range(100))
    before = decoder.forwards
    with pytest.raises(Interrupted):
        decoder.decode([TokenPrompt(prompts_of(5)[0], Sampling(0.0, 1.0, 50), 0)], lambda: next(calls) == 3)
    assert decoder.forwards - before == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cuda_device_says_the_same(tiny_model: Path, decoder: Decoder, dtype: torch.dtype) -> None:
    device: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
    there = Decoder(device.to("cuda").eval(), TOKENIZER)
    wishes = [
        TokenPrompt(row, Sampling(0.8, 0.9, 40, ("e",), True), i) for i, row in enumerate(prompts_of(*range(1, 40)))
    ]
    first, second = there.decode(wishes), there.decode(wishes)
    assert [one.text for one in first] == [one.text for one in second]
    if dtype == torch.float32:
        agree = [a.text == b.text for a, b in zip(decoder.decode(wishes), first, strict=True)]
        assert sum(agree) >= len(agree) - 1  # a draw may fall on the other side of a rounding


def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer that drops the space at the start of a text, with byte fallback."""
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    for piece in ["▁", *"abcdeno", "▁a", "▁no", "no"]:
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [("▁", "a"), ("n", "o"), ("▁", "no")]
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", clean_up_tokenization_spaces=False)


DETOKENISERS = {"bytes": Detokeniser(TOKENIZER), "metaspace": Detokeniser(metaspace())}


@pytest.mark.parametrize("kind", DETOKENISERS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines of continuous integration stall
@given(data=st.data())
def test_pieces_spell_the_text(kind: str, data: st.DataObject) -> None:
    detokeniser = DETOKENISERS[kind]
    tokenizer = detokeniser._tokenizer
    if data.draw(st.booleans()):
        ids = tokenizer(data.draw(st.text(max_size=20)), add_special_tokens=False).input_ids
    else:
        ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=20))
    text = detokeniser.text(ids)
    pieces = detokeniser.pieces(ids, text)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_character_of_several_tokens_belongs_to_the_last() -> None:
    for detokeniser in DETOKENISERS.values():
        ids = detokeniser._tokenizer("a€ no", add_special_tokens=False).input_ids
        pieces = detokeniser.pieces(ids, "a€ no")
        assert "".join(pieces) == "a€ no"
        assert [piece for piece in pieces if piece][:2] == ["a", "€"]
        assert pieces.count("") == 2


def test_a_folder_loads_with_the_tokenizer_that_was_saved(tiny_model: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    assert tokenizer("a€ no").input_ids == TOKENIZER("a€ no").input_ids
