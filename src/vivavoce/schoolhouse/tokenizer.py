"""The schoolhouse's tokenizer: byte-level BPE whose merges are written down, not learned, so that it never varies.

Any text encodes (256 byte tokens). Digits and punctuation are tokens of their own, because a model this small can bind
a variable to its digit only then. `; ` and `: ` take their space with them, so that a variable after them is the same
token as a variable after `=`. The words of the formats are one token each.
"""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vivavoce.schoolhouse.halls_world import GO, GONE, LOOK

PAD, USER, ASSISTANT, END, SYSTEM = SPECIAL = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>")

# Spelled as byte-level BPE spells them: Ġ is a space. Each word is merged letter by letter from the
# left, earlier words first: `score` must come before `reflect`, which would otherwise take its `re`.
WORDS = (
    *(";Ġ", ":Ġ", "ans", "Ġconf", "Ġgot", "Ġok", "Ġwrong", "score", "me"),
    *("solve", "debate", "check", "reflect"),
)
CODE_WORDS = (";Ġ", ":Ġ", "Ġconf", "me", "solve", "debate", "def", "Ġf", "return")
"""Tokens of the programmers, `code_world.py`."""
HALLS_WORDS = (":Ġ", "at", "to", "Ġconf", "me", "act", "end", "locked", GO, GONE, LOOK)
"""Tokens of the walkers, `halls_world.py`. A word with a line break in it is one token in any place."""
_PIECES = r"[;:] | ?[A-Za-z]+|\d|[^\sA-Za-z\d]|\s"

# An assistant's turn is the part to learn from, its <|end|> included; `generation` marks it for assistant masks.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """Build the tokenizer with these words, left-padding as generation needs it."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = list[tuple[str, str]]()
    whole = [word for word in words if "\n" in word]
    for word in words:
        for i in range(1, len(word) if word not in whole else 0):
            if word[: i + 1] not in tokens:
                tokens.append(word[: i + 1])
                merges.append((word[:i], word[i]))
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    core.add_tokens([AddedToken(word, normalized=False) for word in whole])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def prompt(system: str, user: str) -> str:
    """The chat template's rendering of one system and one user turn, for code that has no template at hand."""
    return f"{SYSTEM}{system}{USER}{user}{ASSISTANT}"


def save(folder: Path, words: Sequence[str] = WORDS) -> None:
    """Write the tokenizer's files next to a model."""
    tokenizer(words).save_pretrained(folder)
