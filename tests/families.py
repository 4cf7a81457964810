"""Published chat templates by family, and tokenizers made on the spot that know their marks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.train.students import TEXT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "chat_templates"


class Family(NamedTuple):
    """What a family's tokenizer has, and what its template writes around a plain answer."""

    eos: str
    bos: str | None
    end: str
    """The end of turn."""
    marks: str
    """Further special tokens."""
    head: str = ""
    """Between the served prompt and an answer."""
    system: bool = True
    """Whether it takes a system text."""
    trims: bool = False
    """Whether it takes white space away around an answer."""


CHATML = "<|im_start|> <|endoftext|> <think> </think>"
LLAMA3 = "<|start_header_id|> <|end_header_id|>"
TURNS = "<|user|> <|assistant|> <|system|>"
FAMILIES = {
    "chatml": Family("<|im_end|>", None, "<|im_end|>", CHATML),
    "qwen2_5": Family("<|im_end|>", None, "<|im_end|>", CHATML),
    "qwen3": Family("<|im_end|>", None, "<|im_end|>", CHATML, head="<think>\n\n</think>\n\n"),
    "qwen3_5_think": Family("<|im_end|>", None, "<|im_end|>", CHATML, head="\n</think>\n\n", trims=True),
    "llama2": Family("</s>", "<s>", "</s>", "[INST] [/INST]", head=" ", trims=True),
    "llama3": Family("<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>", LLAMA3, trims=True),
    "llama3_2": Family("<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>", LLAMA3, trims=True),
    "gemma2": Family("<eos>", "<bos>", "<end_of_turn>", "<start_of_turn>", system=False, trims=True),
    "gemma3": Family("<eos>", "<bos>", "<end_of_turn>", "<start_of_turn>", trims=True),
    "mistral": Family("</s>", "<s>", "</s>", "[INST] [/INST]", head=" ", system=False),
    "zephyr": Family("</s>", "<s>", "</s>", ""),
    "vicuna": Family("</s>", "<s>", "</s>", "", head=" ", trims=True),
    "phi3": Family("<|endoftext|>", "<s>", "<|end|>", TURNS),
    "phi4_mini": Family("<|endoftext|>", "<|endoftext|>", "<|end|>", TURNS),
    "glm4": Family("<|endoftext|>", None, "<|user|>", f"{TURNS} [gMASK] <sop> <|observation|>"),
    "glm4_5": Family(
        "<|endoftext|>",
        None,
        "<|user|>",
        f"{TURNS} [gMASK] <sop> <|observation|> <think> </think>",
        head="\n<think></think>\n",
        trims=True,
    ),
    "deepseek_r1": Family(
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜User｜> <｜Assistant｜> <think> </think>",
        head="\n</think>\n\n",
    ),
    "nemotron3": Family("<|im_end|>", "<s>", "<|im_end|>", CHATML, head="</think>", trims=True),
    "smollm2": Family("<|im_end|>", "<|im_start|>", "<|im_end|>", CHATML),
    "olmo2": Family("<|endoftext|>", "<|endoftext|>", "<|endoftext|>", ""),
    "granite3": Family("<|end_of_text|>", "<|end_of_text|>", "<|end_of_text|>", "<|start_of_role|> <|end_of_role|>"),
    "lfm2": Family("<|im_end|>", "<|startoftext|>", "<|im_end|>", CHATML),
    "gpt_oss": Family(
        "<|return|>",
        "<|startoftext|>",
        "<|return|>",
        "<|start|> <|end|> <|channel|> <|message|>",
        head="<|channel|>final<|message|>",
    ),
    "command_a": Family(
        "<|END_OF_TURN_TOKEN|>",
        "<BOS_TOKEN>",
        "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> <|START_RESPONSE|> "
        "<|START_THINKING|> <|END_THINKING|>",
    ),
}
KINDS = ("bytes", "spaces")
"""Byte-level BPE, and sentencepiece's way, in which a space belongs to the word behind it."""


@cache
def family(name: str, kind: str = "bytes") -> PreTrainedTokenizerFast:
    """A tokenizer of a family; leave it as it is."""
    of = FAMILIES[name]
    ends = of.end.replace("><", "> <").split()
    marks = list(dict.fromkeys(["<pad>", of.eos, *([of.bos] if of.bos else []), *ends, *of.marks.split()]))
    if kind == "bytes":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        how = trainers.BpeTrainer(vocab_size=500, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
        core.train_from_iterator(TEXT, how)
    else:
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        core.decoder = decoders.Metaspace(prepend_scheme="first")
        letters = "".join(chr(i) for i in (10, *range(33, 127)))
        seen = [*TEXT, *letters, *FOLDER.joinpath(f"{name}.jinja").read_text("utf-8").splitlines()]
        marks = ["<unk>", *marks]
        how = trainers.UnigramTrainer(vocab_size=500, special_tokens=marks, unk_token="<unk>", show_progress=False)
        core.train_from_iterator(seen, how)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=of.eos,
        bos_token=of.bos,
        pad_token="<pad>",
        chat_template=FOLDER.joinpath(f"{name}.jinja").read_text("utf-8"),
        clean_up_tokenization_spaces=False,
    )
