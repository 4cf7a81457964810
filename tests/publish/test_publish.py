"""A run on the Hub: what would be uploaded, what is refused, and what a stand-in for the Hub is sent."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from tests.publish.hub import Hub
from tests.serving import save_tiny_model
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.errors import DataError
from vivavoce.publish.cards import model_card
from vivavoce.publish.checks import hits_in, in_text
from vivavoce.publish.facts import PublishChoices, facts_of, public
from vivavoce.publish.preparing import prepare
from vivavoce.publish.upload import upload
from vivavoce.report.comparison import signed
from vivavoce.report.sources import Sources

TEACHERS = Path(__file__).parent.parent / "methods" / "teachers.py"


def made_run(folder: Path, lora: Any) -> Path:
    """A finished run, whose student is an adapter or whole."""
    student = save_tiny_model(folder / "student", context=512)
    values = {
        "method": "debate_reflect",
        "name": "mine",
        "task": {"name": "schoolhouse", "train": 12, "test": 6},
        "teachers": [{"name": n, "backend": "scripted", "function": f"{TEACHERS}:{n}"} for n in ("ada", "bob")],
        "student": {"name": "student", "model": str(student), "dtype": "float32", "max_new_tokens": 8},
        "debate": {"prompts": "schoolhouse", "max_rounds": 1, "stop": "cap_only"},
        "arms": ["debate_reflect_sft"],
        "sft": {"max_steps": 1, "lora": lora, "threads": 1, "max_length": 400},
        "test": {"max_new_tokens": 8},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values), "utf-8")
    done = CliRunner().invoke(app, ["run", str(folder / "recipe.yaml"), "--out", str(folder / "run")])
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("whole"), None)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("adapter"), {"r": 2})


def viva(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["publish", *arguments])


def front(card: Path) -> dict[str, Any]:
    return yaml.safe_load(card.read_text("utf-8").split("---\n")[1])


def test_a_dry_run_writes_what_would_be_uploaded_and_sends_nothing(whole: Path) -> None:
    # sockets to the Hub are blocked in tests: an attempt would fail
    done = viva(str(whole), "--to", "me/small-mind", "--dry-run", "--license", "apache-2.0")
    assert done.exit_code == 0, done.output
    assert "me/small-mind-data" in done.stdout
    model, data = whole / "publish" / "model", whole / "publish" / "data"
    names = {file.name for file in model.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "recipe.yaml", "report.html"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".part")) or name == "begun.json"]
    card = (model / "README.md").read_text("utf-8")
    results = json.loads((whole / "results.json").read_text("utf-8"))
    arm = next(arm for arm in results["arms"] if arm["name"] == "debate_reflect_sft")
    assert f"{arm['right']} of {arm['n']}" in card
    for part in ("ada", "bob", "2506.03541", "## Prompt", "Do the terms of the teachers", "The publisher has not said"):
        assert part in card
    assert "| a student of what was right in the debates (SFT) |" in card
    assert "All weights were trained." in card
    assert "6 test questions of `schoolhouse`, none of which was trained on; answers are greedy" in card
    pair = next(p for p in results["paired"] if (p["a"], p["b"]) == ("student", "debate_reflect_sft"))
    low, high = (signed(100 * end) for end in pair["pooled"]["interval95"])
    assert (
        f"`debate_reflect_sft` over `student`: {signed(100 * pair['pooled']['gain'])} points ({low} to {high})" in card
    )
    head = front(model / "README.md")
    assert (head["license"], head["library_name"], head["datasets"]) == (
        "apache-2.0",
        "transformers",
        ["me/small-mind-data"],
    )
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == round(arm["accuracy"], 4)
    assert str(whole.parent) not in "".join(f.read_text("utf-8") for f in (model / "README.md", model / "recipe.yaml"))
    assert str(whole.parent) not in (model / "config.json").read_text("utf-8")
    of_hub: Any = ModelCard.load(model / "README.md").data
    (figure,) = of_hub.eval_results
    assert (figure.metric_type, figure.metric_value) == ("accuracy", round(arm["accuracy"], 4))
    assert DatasetCard.load(data / "README.md").data.to_dict()["size_categories"] == ["n<1K"]


def test_what_was_prepared_loads_where_it_is_read(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from datasets import load_dataset

    prepare(whole, PublishChoices("me/small-mind"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    data = whole / "publish" / "data"
    configs = [one["config_name"] for one in front(data / "README.md")["configs"]]
    assert "debate_reflect_sft" in configs
    for name in configs:
        split = "test" if name.endswith("__answers") else "train"
        assert len(load_dataset(str(data), name, split=split)) > 0, name
    model = whole / "publish" / "model"
    # as a stranger would: the code of the card, word for word
    question = json.loads((whole / "evaluations" / "debate_reflect_sft-0.jsonl").read_text("utf-8").split("\n")[0])
    (code,) = re.findall(r"```python\n(.*?)```", (model / "README.md").read_text("utf-8"), re.DOTALL)
    printed: list[Any] = []
    exec(code.replace("me/small-mind", str(model)).replace("=512", "=4"), {"print": printed.append})
    assert f"question = {json.dumps(question['question'], ensure_ascii=False)}" in code
    assert '{"role": "system", "content": "solve"}' in code
    assert len(printed) == 1
    assert isinstance(printed[0], str)


def test_the_card_does_not_claim_that_test_questions_are_new_if_they_are_not(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = Sources.problems
    monkeypatch.setattr(Sources, "problems", lambda sources, of: problems(sources, "test"))
    card = model_card(facts_of(whole, PublishChoices("me/small-mind")))
    assert "**6 of which are among the training questions**" in card
    monkeypatch.setattr(Sources, "problems", lambda sources, of: {})
    card = model_card(facts_of(whole, PublishChoices("me/small-mind")))
    assert "On 6 test questions of `schoolhouse`; answers are greedy" in card


def test_an_adapter_names_its_base_on_the_hub_and_no_folder(adapter: Path) -> None:
    with pytest.raises(DataError, match="not an id of the Hub"):
        prepare(adapter, PublishChoices("me/adapter"))
    prepare(adapter, PublishChoices("me/adapter", base="org/base-1b"))
    model = adapter / "publish" / "model"
    assert json.loads((model / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"] == "org/base-1b"
    assert (model / "adapter_model.safetensors").is_file()
    assert front(model / "README.md")["base_model"] == "org/base-1b"
    assert front(model / "README.md")["library_name"] == "peft"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("my key is sk-proj-abcdefghijklmnop0123", "key"),
        ("hf_abcdefghijklmnopqrstuvwx", "key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "key"),
        ("write to jane.roe@firm.co.uk today", "email"),
        ("call +44 20 7946 0958", "phone"),
        ("call +1 (415) 555-2671.", "phone"),
        ("pay to DE89 3704 0044 0532 0130 00", "iban"),
        ("card 4111 1111 1111 1111", "card"),
        ("see /home/jroe/notes", "path"),
        (r"in C:\\Users\\jroe\\x", "path"),
        ("ASIAIOSFODNN7EXAMPLE", "key"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "key"),
        ("sk_" + "live_51HabcdefGHIJKL12345", "key"),
        ("glpat-abcdefghij1234567890", "key"),
        ("xai-" + "a1" * 40, "key"),
        ("see https://jane:hunter2@firm/v1", "key"),
        ("jörg@müller.de", "email"),
        ("call +49 171 1234567", "phone"),
        ("call +491711234567", "phone"),
        ("call 0049 171 1234567", "phone"),
        ("call (+49) 171-1234567", "phone"),
        ("card 3782 822463 10005", "card"),
    ],
)
def test_keys_and_personal_data_are_found(text: str, kind: str) -> None:
    assert [kind_found for kind_found, _ in in_text(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "x@y", "a+12 345 678 = b", "3+44 20 7946 0958", "you@example.com", "1234 5678 9012 3456", "4111111111111112",
        "sk-short", "task-based-learning-is-a-long-word", "/home/user/x", "2+1 - 23 - 45 - 67",
        "DE00 3704 0044 0532 0130 00", "3704 0044 0532 0130", "x = +1234567890123", "007 is an agent, 0012 3 too",
        "postgres://user:password@localhost/db", "0.0049 171 1234567", "1234 0049 171 1234567",
    ],
)  # fmt: skip
def test_sums_and_made_up_addresses_are_none(text: str) -> None:
    assert not [*in_text(text)]


def test_the_value_of_a_key_in_the_environment_is_found_whatever_its_form(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"text": "it is correcthorsebattery, you know"}\n', "utf-8")
    (finds,) = hits_in(tmp_path, {"MY_API_KEY": "correcthorsebattery", "HOME": "it is correct"})
    assert (finds.kind, finds.file, finds.line) == ("key", "a.jsonl", 2)
    assert "battery" not in str(finds)


def test_a_run_with_personal_data_is_refused_by_file_and_line(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    rows = run / "data" / "debate_reflect_sft.jsonl"
    row = json.loads(rows.read_text("utf-8").splitlines()[0])
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "completion": "Ask jane.roe@firm.com."}) + "\n")
    number = len(rows.read_text("utf-8").splitlines())
    done = viva(str(run), "--to", "me/x", "--dry-run")
    assert isinstance(done.exception, DataError) or done.exit_code == 2, done.output
    message = str(done.exception) + done.output
    assert f"line {number}" in message
    assert "--allow email" in message
    assert viva(str(run), "--to", "me/x", "--dry-run", "--allow", "email").exit_code == 0
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "completion": "sk-proj-abcdefghijklmnop0123"}) + "\n")
    assert viva(str(run), "--to", "me/x", "--dry-run", "--allow", "email").exit_code != 0
    assert viva(str(run), "--to", "me/x", "--dry-run", "--allow", "key").exit_code != 0


def test_pickled_weights_are_refused(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (folder,) = (run / "checkpoints").glob("debate_reflect_sft-0")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"not safetensors but pytorch_model\.bin"):
        prepare(run, PublishChoices("me/x"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (PublishChoices("small-mind"), "not the name of a repository"),
        (PublishChoices("me/x", arm="debate"), "the run trained no arm `debate`"),
        (PublishChoices("me/x", seed=7), "no student of"),
    ],
)
def test_a_mistake_is_told(whole: Path, wanted: PublishChoices, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(whole, wanted)


def test_nothing_is_sent_before_licence_and_terms_are_answered(whole: Path) -> None:
    for answers in ([], ["--license", "mit"], ["--terms-checked"]):
        done = viva(str(whole), "--to", "me/x", *answers)
        assert done.exit_code != 0
        assert "--terms-checked" in str(done.exception) + done.output


def test_the_hub_is_sent_what_was_prepared(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.constants.HF_HUB_OFFLINE", False, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    shipments = prepare(whole, PublishChoices("me/small-mind", licence="mit", terms_checked=True))
    with Hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        addresses = upload(shipments, endpoint=hub.address)
    assert addresses == [f"{hub.address}/me/small-mind", f"{hub.address}/datasets/me/small-mind-data"]
    assert all(made.get("private") or made.get("visibility") == "private" for made in hub.made.values())
    for shipment in shipments:
        sent = hub.files[shipment.repository]
        here = {
            f.relative_to(shipment.folder).as_posix(): f.read_bytes() for f in shipment.folder.rglob("*") if f.is_file()
        }
        assert {name: data for name, data in sent.items() if name != ".gitattributes"} == here
    with Hub(status=403) as hub, pytest.raises(DataError, match="the Hub refused") as error:
        upload(shipments, endpoint=hub.address)
    assert "hf auth login" in error.value.do
    assert "xxxx" not in str(error.value)


def test_what_belongs_to_this_machine_stays_here() -> None:
    recipe = {
        "task": {"path": "/data/jane/q.jsonl"},
        "teachers": [
            {"name": "a", "base_url": "http://10.0.0.5:8000/v1"},
            {"name": "b", "base_url": "https://api.openai.com/v1"},
            {"name": "c", "base_url": "https://gpu7.corp/v1"},
        ],
    }
    names = public(recipe)
    assert names["task"]["path"] == "q.jsonl"
    assert [bool(re.match("https://", t["base_url"])) for t in names["teachers"]] == [False, True, False]
