"""Local models: calls made at the same time share batches, and nothing hangs or leaks."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from vivavoce.agents import open_agent, weights
from vivavoce.agents.hf_local import HFLocal
from vivavoce.errors import AgentError, MissingDependency, RecipeError
from vivavoce.records import Message, Reply, Sampling

SAMPLING = Sampling(0.8, 0.95, 24)


def make(folder: Path, name: str = "ada", **options: Any) -> HFLocal:
    agent = open_agent(name, "hf_local", {"model": str(folder), "device": "cpu", "threads": 1, **options})
    assert isinstance(agent, HFLocal)
    return agent


def question(i: int) -> list[Message]:
    return [{"role": "system", "content": "solve"}, {"role": "user", "content": f"a={i}; " * (1 + i % 9)}]


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vivavoce-")]


async def closing(agent: HFLocal, *calls: Any) -> list[Any]:
    try:
        return await asyncio.gather(*calls, return_exceptions=True)
    finally:
        await agent.aclose()


def test_concurrent_replies_are_decoded_together_and_say_what_they_say_alone(tiny_model: Path) -> None:
    many, single = make(tiny_model, max_batch=64), make(tiny_model, max_batch=1)
    together = asyncio.run(closing(many, *(many.reply(question(i), SAMPLING, i) for i in range(150))))
    assert many.batches <= 20  # the first 64, then an eighth or more at a time
    alone = asyncio.run(closing(single, *(single.reply(question(i), SAMPLING, i) for i in range(0, 150, 10))))
    assert single.batches == 15
    assert [reply.text for reply in together[::10]] == [reply.text for reply in alone]
    assert all(reply.usage.prompt > 0 and 0 < reply.usage.completion <= 24 for reply in together)
    assert not workers()


def test_several_agents_share_a_device_over_several_rounds(tiny_model: Path) -> None:
    agents = [make(tiny_model, name) for name in ("ada", "bob", "cyd")]

    async def debate(i: int) -> list[str]:
        texts = list[str]()
        for turn in range(3):
            agent = agents[(i + turn) % 3]
            texts.append((await agent.reply([{"role": "user", "content": f"{i} {texts}"[:90]}], SAMPLING, i)).text)
        return texts

    async def run() -> list[list[str]]:
        try:
            return await asyncio.gather(*map(debate, range(60)))
        finally:
            for agent in agents:
                await agent.aclose()

    assert len(asyncio.run(run())) == 60
    assert sum(agent.batches for agent in agents) <= 60  # 180 replies


def test_rows_that_are_decoded_together_respect_their_token_bound(tiny_model: Path) -> None:
    agent = make(tiny_model, max_batch_tokens=400)
    together = list[list[int]]()
    fitting = agent._fitting

    def watch(under_way: Any) -> Any:
        joining = fitting(under_way)
        together.append([len(prompt.ids) for prompt in (*under_way, *(w.prompt for w in joining)) if prompt])
        return joining

    agent._fitting = watch
    replies = asyncio.run(closing(agent, *(agent.reply(question(i), SAMPLING, i) for i in range(40))))
    assert all(isinstance(reply, Reply) for reply in replies)
    assert all(len(sizes) * (max(sizes) + 24) <= 400 or len(sizes) == 1 for sizes in together)
    assert agent.batches < 40


def test_an_overlong_prompt_is_an_error_that_names_the_lengths(tiny_model: Path) -> None:
    agent = make(tiny_model)
    long: list[Message] = [{"role": "user", "content": "7" * 300}]
    nearly: list[Message] = [{"role": "user", "content": "7" * 240}]
    error, rest = asyncio.run(closing(agent, agent.reply(long, SAMPLING, 1), agent.reply(nearly, SAMPLING, 1)))
    assert isinstance(error, AgentError)
    assert error.reason == "overlong"
    assert "302" in error.detail
    assert "256" in error.detail
    assert isinstance(rest, Reply)
    assert rest.usage.prompt == 242
    assert rest.usage.completion <= 14


def test_a_template_that_refuses_is_a_bad_request(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "strict")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if 'a=1' in m.content %}{{ raise_exception('no ones') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    agent = make(folder)
    [error] = asyncio.run(closing(agent, agent.reply(question(1), SAMPLING, 1)))
    assert isinstance(error, AgentError)
    assert error.reason == "bad_request"
    assert "no ones" in error.detail


def test_a_template_that_takes_no_conversation_stops_the_run(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "strict")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    agent = make(folder)
    [error] = asyncio.run(closing(agent, agent.reply(question(1), SAMPLING, 1)))
    assert isinstance(error, RecipeError)
    assert "accepts no conversation of user: it refuses them: no" in error.what


def test_identity_follows_the_content_of_the_folder(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "copy")
    (folder / "trainer_state.json").write_text("{}")
    same = make(tiny_model).identity
    assert make(folder).identity == same
    assert make(folder, dtype="bfloat16").identity != same
    blob = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    os.utime(folder / "model.safetensors", (1, 1))
    assert make(folder).identity != same


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft reads it, transformers renamed it
def test_an_adapter_folder_loads_over_its_base(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = get_peft_model(base, LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"]))
    adapted.save_pretrained(str(tmp_path))
    agent, plain = make(tmp_path), make(tiny_model)
    [reply] = asyncio.run(closing(agent, agent.reply(question(3), Sampling(0.0, 1.0, 24), 1)))
    [other] = asyncio.run(closing(plain, plain.reply(question(3), Sampling(0.0, 1.0, 24), 1)))
    assert agent.identity != plain.identity
    assert reply.text != other.text
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)


def test_a_model_that_cannot_be_loaded_is_the_users_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no folder"):
        make(tmp_path / "missing")
    with pytest.raises(RecipeError, match="no model 'zoe'"):
        open_agent("ada", "hf_local", {"model": "schoolhouse:zoe"})
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"oops")
    untold = shutil.copytree(tiny_model, tmp_path / "untold")
    (untold / "chat_template.jinja").unlink()
    for folder, what in ((broken, "cannot load"), (untold, "no chat template")):
        agent = make(folder)
        errors = asyncio.run(closing(agent, *(agent.reply(question(i), SAMPLING, i) for i in range(3))))
        assert all(isinstance(error, RecipeError) and what in str(error) for error in errors)
    assert not workers()


def test_without_torch_the_extra_is_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"vivavoce\[train\]"):
        make(tiny_model)


def test_a_cancelled_loop_stops_the_worker_and_the_agent_goes_on_later(tiny_model: Path) -> None:
    agent = make(tiny_model)
    asyncio.run(closing(agent, agent.reply(question(1), SAMPLING, 1)))  # load outside of the clock

    async def hasty() -> None:
        slow = [agent.reply([{"role": "user", "content": "7"}], Sampling(1.0, 1.0, 250), i) for i in range(200)]
        await asyncio.wait_for(asyncio.gather(*slow), 0.5)

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(hasty())
    assert time.monotonic() - started < 120
    [reply] = asyncio.run(closing(agent, agent.reply(question(1), SAMPLING, 1)))
    assert isinstance(reply, Reply)
    assert not workers()


def test_weights_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vivavoce import schoolhouse

    monkeypatch.setattr(schoolhouse, "weights", lambda name: tmp_path / name)
    with pytest.raises(RecipeError, match="not installed"):
        weights.folder("schoolhouse:ada")
    (tmp_path / "ada").mkdir()
    assert weights.folder("schoolhouse:ada") == tmp_path / "ada"


def with_template(model: Path, folder: Path, ending: str, special: tuple[str, ...] = ()) -> Path:
    """The model with a template that ends a prompt so, and with further special tokens."""
    from transformers import AutoTokenizer

    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(special), special_tokens=True)
    tokenizer.chat_template = f"{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}{ending}"
    tokenizer.save_pretrained(folder)
    return folder


def test_a_reply_to_a_template_that_opens_a_thought_says_nothing_until_it_is_closed(
    tiny_model: Path, tmp_path: Path
) -> None:
    plain = make(with_template(tiny_model, tmp_path / "plain", "<thin>"))
    thinks = make(with_template(tiny_model, tmp_path / "thinks", "<think>"))
    plain_reply, thinking_reply = (
        asyncio.run(closing(a, a.reply(question(1), SAMPLING, 1)))[0] for a in (plain, thinks)
    )
    assert (bool(plain_reply.text), plain_reply.thought) == (True, "")
    assert (thinking_reply.text, bool(thinking_reply.thought)) == ("", True)


def test_special_tokens_that_mark_a_thought_are_not_lost(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from vivavoce.agents.decode import Decoder
    from vivavoce.agents.replies import split_thought

    folder = with_template(tiny_model, tmp_path / "mistral", "", ("[THINK]", "[/THINK]", "[OTHER]"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, _ = weights.load(folder, "float32", "cpu", False)
    ids = tokenizer("[THINK]a=1[/THINK]b=2[OTHER]", add_special_tokens=False).input_ids
    detokeniser = Decoder(model, tokenizer).reader._detokeniser
    text = detokeniser.text(ids)
    assert "".join(detokeniser.pieces(ids, text)) == text
    assert split_thought(text)[:2] == ("b=2", "a=1")
