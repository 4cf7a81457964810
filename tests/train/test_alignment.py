"""Whether two tokenizers are one, and what can be compared where they are not."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tests.train.students import TEXT, bpe, cases, metaspace
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vivavoce.errors import DataError
from vivavoce.schoolhouse import tokenizer as schoolhouse
from vivavoce.train.alignment import (
    FLOOR,
    Group,
    VocabularyMap,
    groups,
    rows_kept,
    same_tokenizer,
    span_logprobs,
    token_bytes,
)


def fallback() -> PreTrainedTokenizerFast:
    """As of Llama 2: ▁ for a space, one put before the text, and bytes for characters that are in no token."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator([*TEXT, "été à"], trainers.BpeTrainer(vocab_size=200, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": byte + 3 for byte in range(256)}}
    for token in model["vocab"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [(left, right) for left, right in model["merges"]]
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def wordpiece() -> PreTrainedTokenizerFast:
    """Neither of the two alphabets: what a token adds is known only to the decoder."""
    pieces = ["[UNK]", "[SEP]", "a", "ca", "##f", "##fe", "caf", "##é", "two", "words"]
    core = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", eos_token="[SEP]", clean_up_tokenization_spaces=False
    )


TOKENIZERS = {"schoolhouse": schoolhouse.tokenizer(), "bpe": bpe(), "fallback": fallback(), "metaspace": metaspace()}
SIZE = len(TOKENIZERS["bpe"])
COMPLETE = ("schoolhouse", "bpe", "fallback")
"""Those that can spell any text."""
PAIRS = [("schoolhouse", "bpe"), ("bpe", "fallback"), ("fallback", "schoolhouse"), ("metaspace", "bpe")]
HARD = (
    "Solve: what is 12 + 30?",
    "café, née",
    "汉字 and 🙂👩‍👩‍👧!",
    " one leading space",
    "  two  double   spaces  ",
    "\n\nlines\n\tand tabs\r\n",
    "1234567890",
    "▁ and Ġ are letters here <0x41>",
    "",
)


def changed(tokenizer: PreTrainedTokenizerFast, change: Callable[[dict[str, Any]], None], **rest: Any) -> Any:
    """A copy after a change to the JSON that describes it."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    change(described)
    core = Tokenizer.from_str(json.dumps(described))
    return PreTrainedTokenizerFast(tokenizer_object=core, **{"eos_token": tokenizer.eos_token, **rest})


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def eos(tokenizer: PreTrainedTokenizerFast) -> int:
    assert isinstance(tokenizer.eos_token_id, int)
    return tokenizer.eos_token_id


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_was_saved_and_loaded_is_the_same(name: str, tmp_path: Any) -> None:
    TOKENIZERS[name].save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    loaded.chat_template = "another template"
    loaded.padding_side = "right"
    assert same_tokenizer(TOKENIZERS[name], loaded) == []


def test_two_merges_that_changed_places_are_named_though_the_vocabulary_is_the_same() -> None:
    def swap(described: dict[str, Any]) -> None:
        merges = described["model"]["merges"]
        merges[-1], merges[-2] = merges[-2], merges[-1]

    other = changed(bpe(), swap)
    assert other.get_vocab() == TOKENIZERS["bpe"].get_vocab()
    last = json.loads(other.backend_tokenizer.to_str())["model"]["merges"]
    (reason,) = same_tokenizer(TOKENIZERS["bpe"], other)
    assert reason.startswith(f"merges: number {len(last) - 2} is {last[-1]!r} in the student, {last[-2]!r}")


def test_another_merge_is_named_with_the_token_that_it_makes() -> None:
    def replace(described: dict[str, Any]) -> None:
        model = described["model"]
        old = "".join(model["merges"].pop())
        model["vocab"]["QQ"] = model["vocab"].pop(old)
        model["merges"].append(["Q", "Q"])

    reasons = same_tokenizer(bpe(), changed(bpe(), replace))
    assert [reason.partition(":")[0] for reason in reasons][:2] == ["vocabulary", "merges"]
    assert f"1 of {SIZE} tokens only in the teacher, such as 'QQ' (id {SIZE - 1})" in reasons[0]


def test_another_end_of_sequence_is_named() -> None:
    other = copy.deepcopy(TOKENIZERS["bpe"])
    other.eos_token = "<|im_start|>"
    assert same_tokenizer(TOKENIZERS["bpe"], other) == [
        "end of sequence: '<|im_end|>' (id 2) in the student, '<|im_start|>' (id 1) in the teacher"
    ]


def test_an_added_token_and_a_moved_token_are_named() -> None:
    other = copy.deepcopy(TOKENIZERS["bpe"])
    other.add_tokens(["<think>"])
    (reason,) = same_tokenizer(TOKENIZERS["bpe"], other)
    assert reason == f"vocabulary: 1 of {SIZE + 1} tokens only in the teacher, such as '<think>' (id {SIZE})"

    def move(described: dict[str, Any]) -> None:
        vocabulary = described["model"]["vocab"]
        vocabulary["!"], vocabulary["?"] = vocabulary["?"], vocabulary["!"]

    at = TOKENIZERS["bpe"].get_vocab()
    reasons = same_tokenizer(TOKENIZERS["bpe"], changed(bpe(), move))
    assert reasons[0] == f"vocabulary: 2 with other ids, such as '!' ({at['!']} and {at['?']})"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(normalizer=json.loads(normalizers.NFC().__getstate__())),
        lambda d: d["pre_tokenizer"].update(add_prefix_space=True),
    ],
    ids=["normaliser", "prefix space"],
)
def test_what_lies_before_the_merges_shows_in_the_samples(change: Callable[[dict[str, Any]], None]) -> None:
    (reason,) = same_tokenizer(bpe(), changed(bpe(), change))
    assert reason.startswith("sample: ")


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_different_tokenizers_are_not_the_same(left: str, right: str) -> None:
    reasons = same_tokenizer(TOKENIZERS[left], TOKENIZERS[right])
    assert {reason.partition(":")[0] for reason in reasons} >= {"vocabulary", "end of sequence", "sample"}


def test_padding_rows_are_trimmed_to_the_highest_id() -> None:
    assert rows_kept(512, TOKENIZERS["bpe"], "student") == rows_kept(448, TOKENIZERS["bpe"], "teacher") == SIZE
    assert rows_kept(SIZE, TOKENIZERS["bpe"], "student") == SIZE
    added = copy.deepcopy(TOKENIZERS["bpe"])
    added.add_tokens(["<think>"])
    assert rows_kept(448, added, "teacher") == SIZE + 1


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_model_with_fewer_rows_than_ids_is_refused(side: str) -> None:
    with pytest.raises(
        DataError, match=f"the {side} has {SIZE - 1} rows of vocabulary, the tokenizer ids up to {SIZE - 1}"
    ):
        rows_kept(SIZE - 1, TOKENIZERS["bpe"], side)


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("text", HARD)
def test_bytes_join_to_the_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = encode(tokenizer, text)
    # sentencepiece cannot tell its mark from a space
    expected = text.replace("▁", " ") if name == "fallback" else text
    assert b"".join(token_bytes(tokenizer, ids)).decode() == expected


@cases
@given(st.sampled_from(COMPLETE), st.text(max_size=30))
def test_bytes_join_to_any_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = [*encode(tokenizer, text), eos(tokenizer)]
    pieces = token_bytes(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert b"".join(pieces) == decode(tokenizer, ids).encode()
    assert pieces[-1] == b""


def test_an_id_without_a_token_takes_no_character_that_was_cut_off() -> None:
    tokenizer = TOKENIZERS["schoolhouse"]
    half = tokenizer.get_vocab()["¡"]  # one byte that is no UTF-8 by itself
    assert token_bytes(tokenizer, [half, len(tokenizer)]) == ["\ufffd".encode(), b""]


@cases
@given(st.sampled_from(sorted(TOKENIZERS)), st.data())
def test_bytes_of_any_ids_join_to_what_they_decode_to(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 5), max_size=30))
    pieces = token_bytes(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert b"".join(pieces) == decode(tokenizer, ids).encode()
    special = set(tokenizer.all_special_ids)
    nothing = special | set(range(len(tokenizer), len(tokenizer) + 6))
    assert all(piece == b"" for piece, i in zip(pieces, ids, strict=True) if i in nothing)


@pytest.mark.parametrize("name", COMPLETE)
def test_a_character_is_split_over_the_tokens_that_spell_it(name: str) -> None:
    pieces = token_bytes(TOKENIZERS[name], encode(TOKENIZERS[name], "a汉🙂"))
    assert pieces[-7:] == [bytes([byte]) for byte in bytes("汉🙂", "utf-8")]


def test_a_space_at_the_start_is_dropped_only_where_decoding_drops_it() -> None:
    for name, first in (("bpe", b" Solve"), ("metaspace", b"Solve"), ("fallback", b"Solve")):
        tokenizer = TOKENIZERS[name]
        marked = encode(tokenizer, " Solve" if name == "bpe" else "Solve")
        pieces = token_bytes(tokenizer, [*marked, *marked])
        assert b"".join(pieces[: len(marked)]) == first
        assert b"".join(pieces[len(marked) :]) == b" Solve"


@pytest.mark.parametrize("name", COMPLETE)
def test_an_answer_cut_within_a_character_reads_as_it_decodes(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = encode(tokenizer, "So 42 🙂")[:-1]
    for end in ([], [eos(tokenizer)]):
        pieces = token_bytes(tokenizer, [*ids, *end])
        assert b"".join(pieces).decode() == decode(tokenizer, [*ids, *end])
        assert b"".join(pieces).startswith(b"So 42 ")
        assert pieces[len(ids) - 3 : len(ids) - 1] == [b"", b""]
        assert set(pieces[len(ids) - 1].decode()) == {"\ufffd"}
        assert pieces[len(ids) :] == [b""] * len(end)


def test_other_kinds_of_tokenizers_are_read_by_decoding() -> None:
    tokenizer = wordpiece()
    ids = [*encode(tokenizer, "café two words"), eos(tokenizer)]
    assert token_bytes(tokenizer, ids) == [b"caf", "é".encode(), b" two", b" words", b""]


def test_added_tokens_that_are_not_special_spell_themselves() -> None:
    tokenizer = bpe()
    tokenizer.add_tokens(["<think>", "two words"])
    assert token_bytes(tokenizer, encode(tokenizer, "<think>two words")) == [b"<think>", b"two words"]


def parts(text: str) -> list[bytes]:
    return [part.encode() for part in text.split("|")]


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ("caf|é", "c|afé", [((0, 2), (0, 2))]),
        ("caf|é", "c|af|é", [((0, 1), (0, 2)), ((1, 2), (2, 3))]),
        ("caf|é| au|", "café| a|u|", [((0, 2), (0, 1)), ((2, 3), (1, 3)), ((3, 4), (3, 4))]),
        ("a|b|c", "a|b|c", [((0, 1), (0, 1)), ((1, 2), (1, 2)), ((2, 3), (2, 3))]),
        ("|a||b", "a|b", [((0, 2), (0, 1)), ((2, 4), (1, 2))]),  # tokens without bytes join what comes after them
        ("a|b|", "a|b", [((0, 1), (0, 1)), ((1, 3), (1, 2))]),  # an end on one side only belongs to the last group
        ("a|b", "ab||", [((0, 2), (0, 3))]),
        ("a||", "a|", [((0, 1), (0, 1)), ((1, 3), (1, 2))]),
        ("", "|", [((0, 1), (0, 2))]),
    ],
)
def test_groups_close_where_byte_ends_coincide(student: str, teacher: str, expected: list[Any]) -> None:
    assert groups(parts(student), parts(teacher)) == [Group(range(*s), range(*t)) for s, t in expected]


def test_a_group_may_close_within_a_character() -> None:
    joined = groups([b"caf\xc3", b"\xa9"], [b"c", b"af", b"\xc3", b"\xa9"])
    assert joined == [Group(range(0, 1), range(0, 3)), Group(range(1, 2), range(3, 4))]


def test_no_tokens_are_no_groups() -> None:
    assert groups([], []) == []


@pytest.mark.parametrize(("student", "teacher"), [([b"a", b"b"], [b"ac"]), ([b"a"], [b"a", b"b"]), ([b"a"], [])])
def test_different_texts_are_refused(student: list[bytes], teacher: list[bytes]) -> None:
    for left, right in ((student, teacher), (teacher, student)):
        with pytest.raises(DataError, match="spell different texts") as caught:
            groups(left, right)
        assert caught.value.where.startswith("byte 0" if [] in (left, right) else "byte 1")


def test_an_end_of_turn_that_faces_nothing_is_refused() -> None:
    for left, right in (([b""], []), ([], [b"", b""])):
        with pytest.raises(DataError, match="one side has tokens, the other none"):
            groups(left, right)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """The same bytes, cut twice; a cut that is drawn twice makes a token without bytes."""
    text = draw(st.binary(min_size=1, max_size=40))
    at = st.lists(st.integers(0, len(text)), max_size=25).map(sorted)
    left, right = ([text[a:b] for a, b in pairwise([0, *draw(at), len(text)])] for _ in range(2))
    return left, right


@cases
@given(cuts())
@example(([b"", b"a", b"", b""], [b"a", b""]))
def test_groups_cover_every_token_once_and_are_the_smallest(both: tuple[list[bytes], list[bytes]]) -> None:
    student, teacher = both
    joined = groups(student, teacher)
    assert [i for group in joined for i in group.student] == list(range(len(student)))
    assert [i for group in joined for i in group.teacher] == list(range(len(teacher)))
    for group in joined:
        assert group.student
        assert group.teacher
        assert b"".join(student[i] for i in group.student) == b"".join(teacher[i] for i in group.teacher)
    ends = [{sum(map(len, side[:i])) for i in range(1, len(side) + 1)} - {0} for side in (student, teacher)]
    sizes = [len(b"".join(student[i] for i in group.student)) for group in joined]
    assert [end for end, size in zip(accumulate(sizes), sizes, strict=True) if size] == sorted(ends[0] & ends[1])
    assert 0 not in sizes[:-1], "only the end of turn is a group without bytes"
    assert (sizes[-1] == 0) == (student[-1] == b"" == teacher[-1])
    assert groups(teacher, student) == [Group(group.teacher, group.student) for group in joined]


@pytest.mark.parametrize(("left", "right"), [("bpe", "fallback"), ("schoolhouse", "bpe"), ("fallback", "schoolhouse")])
def test_real_tokens_are_grouped_up_to_the_ends_of_turn(left: str, right: str) -> None:
    for text in (*TEXT[:3], *HARD[:7]):
        sides = list[list[bytes]]()
        for name in (left, right):
            ids = [*encode(TOKENIZERS[name], text), eos(TOKENIZERS[name])]
            sides.append(token_bytes(TOKENIZERS[name], ids))
        joined = groups(*sides)
        assert joined[-1] == Group(range(len(sides[0]) - 1, len(sides[0])), range(len(sides[1]) - 1, len(sides[1])))
        assert len(joined) >= len(text.split())


def test_one_tokenizer_gives_groups_of_one() -> None:
    pieces = token_bytes(TOKENIZERS["bpe"], encode(TOKENIZERS["bpe"], TEXT[0] + HARD[2]))
    assert groups(pieces, pieces) == [Group(range(i, i + 1), range(i, i + 1)) for i in range(len(pieces))]


def logits(rows: int, width: int, seed: int) -> Tensor:
    return 3 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)


def jsd(p: Tensor, q: Tensor) -> Tensor:
    middle = torch.logaddexp(p, q) - math.log(2)
    return (kl(p, middle) + kl(q, middle)) / 2


@pytest.mark.parametrize("name", TOKENIZERS)
def test_one_tokenizer_on_both_sides_gives_the_divergence_of_the_whole_vocabulary(name: str) -> None:
    vocabulary = VocabularyMap.of(TOKENIZERS[name], copy.deepcopy(TOKENIZERS[name]))
    size = len(TOKENIZERS[name])
    assert vocabulary.student_ids.tolist() == vocabulary.teacher_ids.tolist() == list(range(size))
    student, teacher = logits(7, size, 1), logits(7, size, 2)
    q, p = vocabulary.shared(student, teacher)
    assert (q[:, -1] == FLOOR).all()
    assert (p[:, -1] == FLOOR).all()
    whole_q, whole_p = student.log_softmax(-1), teacher.log_softmax(-1)
    for divergence in (kl, jsd):
        torch.testing.assert_close(divergence(p, q), divergence(whole_p, whole_q), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(divergence(q, p), divergence(whole_q, whole_p), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_pairs_spell_the_same_and_no_id_is_paired_twice(left: str, right: str) -> None:
    student, teacher = TOKENIZERS[left], TOKENIZERS[right]
    vocabulary = VocabularyMap.of(student, teacher)
    ours, theirs = vocabulary.student_ids.tolist(), vocabulary.teacher_ids.tolist()
    assert vocabulary.student_ids.dtype == vocabulary.teacher_ids.dtype == torch.int64
    assert ours == sorted(set(ours))
    assert len(theirs) == len(set(theirs)) == len(ours)
    pairs = dict(zip(ours, theirs, strict=True))
    assert pairs.pop(student.eos_token_id) == teacher.eos_token_id
    for i, j in pairs.items():
        if i in student.all_special_ids:
            assert student.convert_ids_to_tokens(i) == teacher.convert_ids_to_tokens(j)
            continue
        # behind another token, so that no space at the start is dropped
        student_bytes, teacher_bytes = (
            token_bytes(t, [encode(t, "a")[-1], k])[-1] for t, k in ((student, i), (teacher, j))
        )
        if "\ufffd" not in student.decode([i]):  # half a character is not valid by itself
            assert student_bytes == teacher_bytes != b""
    spelled = [set(map(tuple, _all_bytes(left))), set(map(tuple, _all_bytes(right)))]
    assert len(pairs.keys() - set(student.all_special_ids)) == len(spelled[0] & spelled[1])


def _all_bytes(name: str) -> list[bytes]:
    """What every token of a vocabulary spells that is not special, each alphabet as it is defined."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokenizer = TOKENIZERS[name]
    strings = [s for s, i in tokenizer.get_vocab().items() if i not in tokenizer.all_special_ids]
    if name in ("bpe", "schoolhouse"):
        back = {character: byte for byte, character in bytes_to_unicode().items()}
        return [bytes(back[character] for character in string) for string in strings]
    return [
        bytes([int(string[3:5], 16)]) if string.startswith("<0x") else string.replace("▁", " ").encode()
        for string in strings
    ]


def test_whole_tokens_are_paired_before_byte_tokens() -> None:
    byte_level, other = TOKENIZERS["bpe"], TOKENIZERS["fallback"]
    vocabulary = VocabularyMap.of(byte_level, other)
    pairs = dict(zip(vocabulary.student_ids.tolist(), vocabulary.teacher_ids.tolist(), strict=True))
    at, there = byte_level.get_vocab(), other.get_vocab()
    assert pairs[at["a"]] == there["a"]
    assert pairs[at["Ġ"]] == there["▁"]
    assert pairs[at["Ċ"]] == there["<0x0A>"]
    assert pairs[at["Ã"]] == there["<0xC3>"]
    assert there["<0x61>"] not in pairs.values()


def test_special_tokens_are_paired_by_string_and_ends_of_turn_by_their_role() -> None:
    student, teacher = bpe(), schoolhouse.tokenizer()
    vocabulary = VocabularyMap.of(student, teacher)
    pairs = dict(zip(vocabulary.student_ids.tolist(), vocabulary.teacher_ids.tolist(), strict=True))
    named = {student.convert_ids_to_tokens(i): teacher.convert_ids_to_tokens(j) for i, j in pairs.items()}
    assert named["<|pad|>"] == "<|pad|>"
    assert named["<|im_end|>"] == "<|end|>"
    assert "<|im_start|>" not in named
    user = teacher.convert_tokens_to_ids("<|user|>")
    assert isinstance(user, int)
    other = VocabularyMap.of(student, teacher, ends=(1, user))
    pairs = dict(zip(other.student_ids.tolist(), other.teacher_ids.tolist(), strict=True))
    assert pairs[1] == user
    assert student.eos_token_id not in pairs


def test_ends_of_turn_are_not_paired_a_second_time_by_their_strings() -> None:
    base, chat = TOKENIZERS["bpe"], copy.deepcopy(TOKENIZERS["bpe"])
    chat.eos_token = "<|im_start|>"
    vocabulary = VocabularyMap.of(base, chat)
    pairs = dict(zip(vocabulary.student_ids.tolist(), vocabulary.teacher_ids.tolist(), strict=True))
    assert pairs == {2: 1, **{i: i for i in range(SIZE) if i not in (1, 2)}}


def test_a_special_token_is_not_paired_with_text_that_looks_like_it() -> None:
    student, teacher = bpe(), bpe()
    student.add_tokens(["<think>"], special_tokens=True)
    teacher.add_tokens(["<think>"])
    assert VocabularyMap.of(student, teacher).student_ids.tolist() == list(range(SIZE))


def test_tokens_that_only_decoding_tells_are_paired_by_what_they_add() -> None:
    student, teacher = wordpiece(), bpe()
    teacher.add_tokens([" two", " words"])
    vocabulary = VocabularyMap.of(student, teacher)
    named = dict(
        zip(
            student.convert_ids_to_tokens(vocabulary.student_ids.tolist()),
            teacher.convert_ids_to_tokens(vocabulary.teacher_ids.tolist()),
            strict=True,
        )
    )
    assert named == {"[SEP]": "<|im_end|>", "a": "Ġa", "##f": "f", "two": " two", "words": " words"}


def test_vocabularies_without_common_text_are_refused() -> None:
    core = Tokenizer(models.BPE({"<|pad|>": 0, "ж": 1}, []))
    core.decoder = decoders.Metaspace()
    core.add_special_tokens([AddedToken("<|pad|>", special=True)])
    other = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|pad|>")
    with pytest.raises(DataError, match="no text in common"):
        VocabularyMap.of(schoolhouse.tokenizer(), other)


def test_the_rest_is_the_mass_of_the_unpaired() -> None:
    vocabulary = VocabularyMap(torch.tensor([0, 2]), torch.tensor([3, 1]))
    student = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    teacher = torch.tensor([[0.05, 0.15, 0.2, 0.35, 0.25]]).log() + 5
    q, p = vocabulary.shared(student, teacher)
    torch.testing.assert_close(q.exp(), torch.tensor([[0.1, 0.3, 0.6]]))
    torch.testing.assert_close(p.exp(), torch.tensor([[0.35, 0.15, 0.5]]))


@pytest.mark.parametrize(("left", "right"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_sides_stay_distributions(left: str, right: str, dtype: torch.dtype) -> None:
    vocabulary = VocabularyMap.of(TOKENIZERS[left], TOKENIZERS[right])
    # wider than the vocabularies, as padded embeddings are
    widths = [len(TOKENIZERS[name]) + 7 for name in (left, right)]
    for scale in (0.1, 1.0, 30.0):
        both = vocabulary.shared(*(scale * logits(5, width, 3).to(dtype) for width in widths))
        for side in both:
            assert side.shape == (5, len(vocabulary.student_ids) + 1)
            assert side.dtype == torch.float32
            torch.testing.assert_close(side.logsumexp(-1), torch.zeros(5), rtol=0, atol=2e-6)
        assert 0 <= jsd(*both).min() <= jsd(*both).max() <= math.log(2) + 1e-6


def test_a_tiny_rest_keeps_its_size() -> None:
    # 1 - sum would be 0 or a rounding error here
    vocabulary = VocabularyMap(torch.tensor([0, 1]), torch.tensor([0, 1]))
    q, _ = vocabulary.shared(torch.tensor([[0.0, 0.0, -40.0, -41.0]]), torch.zeros(1, 2))
    expected = math.log(math.exp(-40) + math.exp(-41)) - math.log(2)
    assert q[0, -1].item() == pytest.approx(expected, abs=1e-5)


def test_the_gradient_is_that_of_the_lumped_probabilities() -> None:
    vocabulary = VocabularyMap(torch.tensor([0, 2]), torch.tensor([1, 3]))
    student, teacher = logits(4, 6, 4), logits(4, 5, 5)
    for divergence in (kl, jsd):
        one, two = (student.clone().requires_grad_() for _ in range(2))
        q, p = vocabulary.shared(one, teacher)
        divergence(q, p).sum().backward()
        full, other = two.softmax(-1), teacher.softmax(-1)
        lumped = torch.cat([full[:, [0, 2]], full[:, [1, 3, 4, 5]].sum(-1, keepdim=True)], -1).log()
        target = torch.cat([other[:, [1, 3]], other[:, [0, 2, 4]].sum(-1, keepdim=True)], -1).log()
        divergence(lumped, target).sum().backward()
        assert one.grad is not None
        assert two.grad is not None
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("masked", [[], [1, 3, 4, 5], [0], [0, 2]], ids=str)
def test_gradients_are_finite_also_where_ids_are_masked(masked: list[int]) -> None:
    vocabulary = VocabularyMap(torch.tensor([0, 2]), torch.tensor([0, 1]))
    for scale in (1.0, 100.0):
        student = scale * logits(4, 6, 6)
        student[:, masked] = -torch.inf
        student.requires_grad_()
        teacher = scale * logits(4, 2, 7)  # nothing is unpaired here
        q, p = vocabulary.shared(student, teacher)
        assert q.isfinite().all()
        (kl(p, q) + kl(q, p) + jsd(p, q)).sum().backward()
        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_descent_reaches_the_teacher_across_vocabularies() -> None:
    vocabulary = VocabularyMap.of(TOKENIZERS["bpe"], TOKENIZERS["fallback"])
    student = logits(3, SIZE, 8).requires_grad_()
    teacher = logits(3, len(TOKENIZERS["fallback"]), 9)
    optimiser = torch.optim.Adam([student], lr=0.3)
    losses = list[float]()
    for _ in range(150):
        q, p = vocabulary.shared(student, teacher)
        loss = kl(p, q).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 1e-2


def test_spans_are_sums_of_their_tokens() -> None:
    values = torch.tensor([-1.0, -2.0, -4.0, -8.0, -16.0], requires_grad=True)
    sums = span_logprobs(values, [range(0, 1), range(1, 4), range(4, 4), range(4, 5), range(3, 5)])
    assert sums.tolist() == [-1.0, -14.0, 0.0, -16.0, -24.0]
    (sums * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 2.0, 2.0, 7.0, 9.0]
    assert span_logprobs(values, []).shape == (0,)
    with pytest.raises(AssertionError, match="within 5 tokens"):
        span_logprobs(values, [range(4, 6)])


@cases
@given(cuts())
def test_spans_of_groups_lose_no_token(both: tuple[list[bytes], list[bytes]]) -> None:
    joined = groups(*both)
    for side, ranges in zip(both, ([g.student for g in joined], [g.teacher for g in joined]), strict=True):
        values = -torch.arange(1.0, len(side) + 1)
        sums = span_logprobs(values, ranges)
        assert sums.shape == (len(joined),)
        assert sums.sum() == values.sum()
        assert torch.equal(sums, span_logprobs(values, ranges))
