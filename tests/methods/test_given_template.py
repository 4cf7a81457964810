"""Models that have no chat template, or lack other parts: what a recipe gives them, and what is refused at once."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.gguf_model import save_gguf
from tests.methods.carry import carry_out
from tests.serving import save_tiny_model

from vivavoce.agents import open_agent, weights
from vivavoce.agents.chat_template import ChatTemplate
from vivavoce.agents.given_template import source, template_names, with_template
from vivavoce.agents.journal import Journal
from vivavoce.config import check_recipe
from vivavoce.errors import RecipeError
from vivavoce.methods.doctor import examine
from vivavoce.methods.seats import need_whole
from vivavoce.methods.token_count import TokenCount
from vivavoce.records import Sampling

ASKED: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a=4; b=a-5; b?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a chat template, as a base model is."""
    folder = save_tiny_model(tmp_path_factory.mktemp("base"), context=512)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file = folder / "tokenizer_config.json"
    settings = {k: v for k, v in json.loads(file.read_text()).items() if k != "chat_template"}
    file.write_text(json.dumps(settings))
    assert ChatTemplate.within(folder) is None
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def failed(recipe: dict[str, Any]) -> list[str]:
    reports = examine(check_recipe(recipe, Path("test.yaml")), offline=True)
    return [f"{f.what}: {f.said}; {f.do}" for f in reports if f.level == "failed"]


def small(recipe: dict[str, Any], folder: Path, **student: Any) -> dict[str, Any]:
    return {**recipe, "student": {**recipe["student"], "model": str(folder), **student}}


def test_a_base_model_answers_trains_and_is_saved_with_the_template_that_it_is_given(
    recipe: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    message = failed(small(recipe, base))
    assert len(message) == 1
    assert "holds no chat template" in message[0]
    assert "chat_template: chatml or plain" in message[0]
    with pytest.raises(RecipeError, match="holds no chat template"):
        carry_out(small(recipe, base), tmp_path / "run")
    with Journal(tmp_path / "run" / "journal.sqlite", read_only=True) as journal:
        assert not len(journal), "nobody has been asked"
    given = small(recipe, base, chat_template="plain")
    assert not failed(given)
    results, _ = carry_out(given, tmp_path / "run")
    assert {"student", "debate_reflect"} <= {arm["name"] for arm in results["arms"]}
    trained = ChatTemplate.within(next((tmp_path / "run" / "checkpoints").glob("debate_reflect_sft-*")))
    assert trained is not None
    assert trained.source == source("plain")
    assert ChatTemplate.within(base) is None, "the model itself stays as it was"


def test_the_template_stands_in_prompts_and_ends_an_answer_with_the_models_own_end(base: Path) -> None:
    folder = with_template(base, "plain")
    template = ChatTemplate.within(folder)
    assert template is not None
    end = template.special["eos_token"]
    assert template.prompt(ASKED) == "Be brief.\n\nUser:\na=4; b=a-5; b?\n\nAssistant:\n"
    assert template.prompt([*ASKED, {"role": "assistant", "content": "ans=3"}, ASKED[1]]).count(f"ans=3{end}") == 1
    assert with_template(folder, "plain") == folder
    assert with_template(base, "plain") == folder

    async def reply() -> str:
        agent = open_agent("a", "hf_local", {"model": str(base), "chat_template": "plain", "dtype": "float32"})
        reply_of_agent = await agent.reply(ASKED, Sampling(0.0, max_new_tokens=4), 1)
        await agent.aclose()
        return reply_of_agent.text

    assert isinstance(asyncio.run(reply()), str)


def test_what_is_no_template_is_refused_before_a_model_is_loaded(base: Path, tmp_path: Path) -> None:
    assert template_names() == ["chatml", "plain"]
    with pytest.raises(RecipeError, match="did you mean `plain`"):
        open_agent("a", "hf_local", {"model": str(base), "chat_template": "plane"})
    with pytest.raises(RecipeError, match=r"no token <\|im_end\|>") as error:
        with_template(base, "chatml")
    assert "chat_template: plain" in error.value.do
    own_file = tmp_path / "mine.jinja"
    own_file.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", "utf-8")
    made = ChatTemplate.within(with_template(base, str(own_file)))
    assert made is not None
    assert made.source == own_file.read_text("utf-8")


@pytest.mark.parametrize(
    ("lacks", "says"),
    [("tokenizer.json", "no tokenizer"), ("config.json", "no config.json"), ("model.safetensors", "no weights")],
)
def test_the_doctor_refuses_a_student_that_a_run_could_not_load(
    recipe: dict[str, Any], base: Path, tmp_path: Path, lacks: str, says: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(base, folder)
    (folder / lacks).unlink()
    message = failed(small(recipe, folder, chat_template="plain"))
    assert any(says in one for one in message), message


@pytest.fixture
def packed(student: Path, tmp_path: Path) -> Path:
    """A GGUF file, alone in its folder but for the tokenizer."""
    pytest.importorskip("gguf")
    (tmp_path / "packed").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(student / name, tmp_path / "packed")
    return save_gguf(student, tmp_path / "packed" / "model.gguf")


def test_a_student_in_a_gguf_file_is_unpacked_whole_learns_and_is_saved_as_safetensors(
    recipe: dict[str, Any], student: Path, packed: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    for model in (packed, packed.parent):
        assert not failed(small(recipe, model))
    folder = weights.folder(str(packed))
    assert weights.folder(str(packed.parent)) == folder
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).state_dict() for one in (folder, student)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    results, _ = carry_out({**small(recipe, packed), "seeds": [0], "arms": ["debate_reflect_sft"]}, tmp_path / "run")
    assert "debate_reflect_sft" in {arm["name"] for arm in results["arms"]}
    made = next((tmp_path / "run" / "checkpoints").glob("debate_reflect_sft-*"))
    assert (made / "model.safetensors").is_file()
    assert (made / "tokenizer.json").read_text() == (student / "tokenizer.json").read_text()


def test_a_gguf_file_that_cannot_be_used_is_refused_with_its_reason(
    recipe: dict[str, Any], packed: Path, tmp_path: Path
) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[:3000])
    assert any(
        "the GGUF file cannot be read: the file ends within its header" in one for one in failed(small(recipe, packed))
    )
    packed.write_bytes(b"<html>" + whole)
    assert any("not a GGUF file" in one for one in failed(small(recipe, packed)))
    packed.write_bytes(whole.replace(b"qwen3", b"qwen0"))
    assert any("cannot read the GGUF file" in one for one in failed(small(recipe, packed)))
    packed.write_bytes(whole)
    shutil.copy(packed, packed.with_name("other.gguf"))
    assert any("holds 2 GGUF files" in one for one in failed(small(recipe, packed.parent)))
    assert any("there is no file" in one for one in failed(small(recipe, tmp_path / "none.gguf")))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter without a tokenizer of its own, as PEFT saves it; its base has tokenizer and template."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    whole, folder = save_tiny_model(tmp_path_factory.mktemp("whole"), context=512), tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    with weights.peft_unheard():
        get_peft_model(AutoModelForCausalLM.from_pretrained(whole), lora).save_pretrained(str(folder))
    assert not list(folder.glob("tokenizer*"))
    return folder


def test_an_adapter_without_a_tokenizer_of_its_own_starts_a_run_with_that_of_its_base(
    recipe: dict[str, Any], adapter: Path, tmp_path: Path
) -> None:
    given = small(recipe, adapter)
    assert not failed(given)
    assert TokenCount(check_recipe(given, Path("t")).student).exact
    given["sft"] = {**given["sft"], "lora": {"r": 2, "targets": ["q_proj"]}}
    results, _ = carry_out({**given, "seeds": [0], "arms": ["debate_reflect_sft"]}, tmp_path / "run")
    assert "debate_reflect_sft" in {arm["name"] for arm in results["arms"]}
    made = next((tmp_path / "run" / "checkpoints").glob("debate_reflect_sft-*"))
    assert weights.base_name(made) == weights.base_name(adapter), "the adapters are one, on the same base"


def test_a_template_that_an_adapter_is_given_is_that_of_its_prompts(adapter: Path) -> None:
    folder = weights.folder(str(adapter), template="plain")
    assert weights.tokenizer_folder(folder) == folder
    own = ChatTemplate.within(folder)
    assert own is not None
    assert own.source == source("plain")
    assert weights.load(folder, "float32", "cpu", False)[1].chat_template == own.source


@pytest.mark.parametrize("base", ["null", "7", '""'])
def test_an_adapter_that_names_no_base_is_told_so(
    recipe: dict[str, Any], adapter: Path, tmp_path: Path, base: str
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "lost"))
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = json.loads(base)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert any("does not name its base model" in one for one in failed(small(recipe, folder)))


def test_a_model_of_the_hub_whose_tokenizer_alone_is_here_is_not_refused(
    recipe: dict[str, Any], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub" / "models--some--one"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    for file in base.glob("tokenizer*"):
        shutil.copy(file, place / "snapshots" / "abc")
    student = check_recipe({**recipe, "student": {**recipe["student"], "model": "some/one"}}, Path("t")).student
    with pytest.raises(RecipeError, match="holds no chat template"):
        need_whole([student])
    need_whole([student.model_copy(update={"chat_template": "plain"})])
