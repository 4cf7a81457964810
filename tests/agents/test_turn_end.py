"""The end of a turn is read from the chat template, as real families write it."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vivavoce.agents.turn_end import end_of_turn

LOOP = "{% for m in messages %}"
END = "{% endfor %}"
MARKS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "</s>"),
    *("<|user|>", "<|assistant|>", "<|end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]"),
    *("[/INST]", "<|start|>", "<|message|>", "<|return|>", "<|START_OF_TURN|>", "<|END_RESPONSE|>", "<|END_OF_TURN|>"),
)
FAMILIES = {
    "chatml": (LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" + END, "<|endoftext|>", "<|im_end|>"),
    "gemma": (
        "<bos>" + LOOP + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
        "<end_of_turn>\n" + END + "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<eos>",
        "<end_of_turn>",
    ),
    "phi3": (
        LOOP + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n" + END + "{% if add_generation_prompt %}<|assistant|>\n"
        "{% else %}{{ eos_token }}{% endif %}",
        "<|endoftext|>",
        "<|end|>",
    ),
    "phi4 mini": (
        LOOP + "<|{{ m.role }}|>{{ m.content }}<|end|>" + END + "{% if add_generation_prompt %}<|assistant|>"
        "{% else %}{{ eos_token }}{% endif %}",
        "<|endoftext|>",
        "<|end|>",
    ),
    "llama3": (
        "<bos>" + LOOP + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>" + END,
        "<|endoftext|>",
        "<|eot_id|>",
    ),
    "mistral": (
        "<bos>" + LOOP + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
        "{% endif %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}"
        + END,
        "</s>",
        "</s>",
    ),
    "glm4": (
        LOOP + "<|{{ m.role }}|>\n{{ m.content }}" + END + "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "<|endoftext|>",
        "<|user|>",
    ),
    "gpt-oss": (
        LOOP + "<|start|>{{ m.role }}<|message|>{{ m.content }}{% if loop.last and m.role == 'assistant' %}<|return|>"
        "{% else %}<|end|>{% endif %}" + END,
        "<|endoftext|>",
        "<|return|>",
    ),
    "command a": (
        "<bos>" + LOOP + "<|START_OF_TURN|>{{ m.role }}{{ m.content }}{% if m.role == 'assistant' %}<|END_RESPONSE|>"
        "{% endif %}<|END_OF_TURN|>" + END,
        "<eos>",
        "<|END_OF_TURN|>",
    ),
    "falcon 3": (
        LOOP + "<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' and loop.last %}{{ eos_token }}"
        "{% else %}\n{% endif %}" + END,
        "<|endoftext|>",
        "<|endoftext|>",
    ),
    "always asks for more": (
        LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" + END + "<|im_start|>assistant\n",
        "<|endoftext|>",
        "<|im_end|>",
    ),
    "opened by bos alone": (LOOP + "<bos>{{ m.role }}: {{ m.content }}\n" + END, "<eos>", "<eos>"),
    "plain text": (LOOP + "### {{ m.role }}: {{ m.content }}\n" + END, "<eos>", "<eos>"),
    "loses the answer": (
        LOOP + "{% if m.role == 'user' %}{{ m.content }}<|im_end|>{% endif %}" + END,
        "<eos>",
        "<eos>",
    ),
    "cannot be rendered": ("{{ raise_exception('no') }}", "<eos>", "<eos>"),
    "there is none": (None, "<eos>", "<eos>"),
}


def tokenizer(template: str | None, eos: str, special: bool = True) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    marks = list(MARKS) if special else []
    core.train_from_iterator(
        ["How? Why?"],
        trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=alphabet, show_progress=False),
    )
    if not special:
        core.add_tokens(list(MARKS))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, bos_token="<bos>", chat_template=template)


def end(words: PreTrainedTokenizerFast, **template: object) -> object:
    token = end_of_turn(words, template)
    return None if token is None else words.convert_ids_to_tokens(token)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("special", [True, False], ids=["special", "added"])
def test_the_end_of_turn_is_what_the_template_writes_after_an_answer(family: str, special: bool) -> None:
    template, eos, wanted = FAMILIES[family]
    assert end(tokenizer(template, eos, special)) == wanted


def test_another_template_of_the_same_tokenizer_ends_turns_in_its_own_way() -> None:
    words = tokenizer(FAMILIES["gemma"][0], "<eos>")
    assert end(words) == "<end_of_turn>"
    words.chat_template = FAMILIES["llama3"][0]
    assert end(words) == "<|eot_id|>"
    words.chat_template = LOOP + "{{ m.content }}{{ '</s>' if french else '<|end|>' }}" + END
    assert end(words, french=True) == "</s>"
    assert end(words, french=False) == "<|end|>"
