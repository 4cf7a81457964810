"""`viva doctor` says what is wrong, where, and what to do, of real endpoints, models and data."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from tests.methods.word_server import Teacher, WordServer, write_problems
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.config import AgentSpec, check_recipe, load_recipe
from vivavoce.errors import RecipeError, UserError
from vivavoce.methods.doctor import Finding, examine
from vivavoce.methods.memory import Machine, Use, free_memory, on_disk, size_of, uses
from vivavoce.schoolhouse import tokenizer as schoolhouse_tokenizer

pytestmark = pytest.mark.usefixtures("short_rehearsal")
TEACHERS = {"ada": Teacher(0.8, 20), "bob": Teacher(0.6, 20)}


@pytest.fixture(scope="module")
def server() -> Iterator[WordServer]:
    with WordServer(TEACHERS) as server:
        yield server


def reached(name: str, base_url: str, **changes: Any) -> dict[str, Any]:
    """A teacher behind an endpoint."""
    there = {"name": name, "model": name, "backend": "openai_chat", "base_url": base_url, "api_key_env": None}
    return {**there, "max_retries": 0, "price": {"prompt": 1, "completion": 2}, **changes}


@pytest.fixture
def values(recipe: dict[str, Any], server: WordServer, tmp_path: Path) -> dict[str, Any]:
    return {
        **recipe,
        "task": write_problems(tmp_path, 12, 6),
        "teachers": [reached(name, server.base_url) for name in TEACHERS],
        "student": {**recipe["student"], "max_new_tokens": 8},
        "debate": {"max_rounds": 2, "student": "never", "context_tokens": 200},
    }


def findings(values: dict[str, Any], **how: Any) -> list[Finding]:
    return list(examine(check_recipe(values, Path("t")), **how))


def one(all_findings: list[Finding], what: str, message: str) -> Finding:
    """The finding on ``what`` that says ``message``."""
    assert any(f.what == what and message in f.said for f in all_findings), "\n".join(map(str, all_findings))
    (finding,) = [f for f in all_findings if f.what == what and message in f.said]
    return finding


def test_a_sound_recipe_is_found_sound_and_an_offline_one_asks_nobody(
    values: dict[str, Any], server: WordServer, tmp_path: Path
) -> None:
    before = server.requests
    assert all(f.level != "failed" for f in findings(values, offline=True))
    assert server.requests == before
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    shown = CliRunner().invoke(app, ["doctor", str(tmp_path / "r.yaml")])
    assert shown.exit_code == 0, shown.output
    assert server.requests == before + 2 * 5
    for line in (
        "endpoint ada: reached",
        "seeds at temperature 1 give different texts",
        "12 train questions",
        "0 failed",
    ):
        assert line in shown.output


@pytest.mark.parametrize(
    ("change", "message", "do"),
    [
        ({"model": "nobody"}, "no model nobody", "whether `model` is known there"),
        ({"base_url": ""}, "unreachable", "whether the server is up"),
        ({"logprobs": True}, "gives no log-probabilities", "set logprobs: false"),
    ],
)
def test_what_an_endpoint_does_not_give_is_said_with_what_to_do(
    values: dict[str, Any], server: WordServer, tmp_path: Path, change: dict[str, Any], message: str, do: str
) -> None:
    if change.get("base_url") == "":
        with socket.socket() as free:  # a port that nobody listens at once it is closed
            free.bind(("127.0.0.1", 0))
            change = {"base_url": f"http://127.0.0.1:{free.getsockname()[1]}/v1"}
    values["teachers"][0] = reached("ada", **{"base_url": server.base_url, **change})
    bad = one(findings(values), "endpoint ada", message)
    assert bad.level == "failed"
    assert do in bad.do
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    shown = CliRunner().invoke(app, ["doctor", str(tmp_path / "r.yaml"), "--json"])
    assert shown.exit_code == 1
    assert {"level": "failed", "what": "endpoint ada", "said": bad.said, "do": bad.do} in json.loads(shown.stdout)


@pytest.mark.parametrize(
    ("server_is", "level", "message"),
    [
        ("frozen", "warning", "give one and the same text"),
        ("fickle", "warning", "asked twice at temperature 0, it gives different replies"),
        ("silent", "warning", "does not report the tokens"),
    ],
)
def test_a_server_that_overrides_sampling_or_tells_no_tokens_is_found_out(
    values: dict[str, Any], server_is: str, level: str, message: str
) -> None:
    faults: dict[str, Any] = {server_is: True}
    with WordServer(TEACHERS, **faults) as odd:
        values["teachers"][1] = reached("bob", odd.base_url)
        assert one(findings(values), "endpoint bob", message).level == level
        if server_is == "frozen":
            values["teachers"][1]["samples"] = 2
            assert one(findings(values), "endpoint bob", message).level == "failed"


def test_what_of_the_sampling_does_not_reach_a_model_is_said(values: dict[str, Any], tmp_path: Path) -> None:
    values["teachers"] = [
        {"name": "claude", "backend": "anthropic_messages", "model": "c", "api_key_env": None, "logprobs": True},
        {"name": "older", "backend": "anthropic_messages", "model": "o", "api_key_env": None, "takes": ["temperature"]},
        reached("gem", "http://127.0.0.1:9/v1", preset="gemini"),
        reached("odd", "http://127.0.0.1:9/v1", omit=["top_p", "stop", "max_tokens"], stop=["\n\n"], top_p=0.9),
        reached("all", "http://127.0.0.1:9/v1", omit=["temperature"], extra_body={"temperature": 0.3}),
        reached("few", "http://127.0.0.1:9/v1", top_k=20, repetition_penalty=1.1),
        reached("own", "http://127.0.0.1:9/v1", preset="llama_cpp", top_k=20, repetition_penalty=1.1),
    ]
    reports = findings(values, offline=True)

    def messages(name: str) -> dict[str, str]:
        return {
            f.said.split(" is not")[0].split(" are not")[0][:14]: f.level
            for f in reports
            if f.what == f"sampling {name}"
        }

    assert messages("claude") == {"temperature 0.": "warning", "log-probabilit": "failed", "no seed is sen": "ok"}
    assert messages("older") == {"no seed is sen": "ok"}
    assert messages("gem") == {"no seed is sen": "ok"}
    assert messages("odd") == {"top_p 0.9": "warning", "the texts of `": "warning", "max_new_tokens": "warning"}
    assert messages("all") == messages("own") == {}
    assert messages("few") == {"top_k 20": "warning", "repetition_pen": "warning"}
    assert "also_takes: {top_k: top_k}" in one(reports, "sampling few", "top_k").do
    assert "takes: [temperature]" in one(reports, "sampling claude", "temperature 0.3 is not sent").do
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    shown = CliRunner().invoke(app, ["plan", str(tmp_path / "r.yaml"), "--json"])
    not_sent = json.loads(shown.stdout)["not_sent"]
    assert not_sent["claude"] == ["temperature", "logprobs", "seed"]
    assert not_sent["odd"] == ["top_p", "stop", "max_new_tokens"]
    assert "claude: temperature 0.3 is not sent" in CliRunner().invoke(app, ["plan", str(tmp_path / "r.yaml")]).stderr


def test_a_missing_key_is_named(values: dict[str, Any], server: WordServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    values["teachers"][0] = reached("ada", server.base_url, api_key_env="SOME_KEY")
    bad = one(findings(values, offline=True), "agent ada", "$SOME_KEY is empty")
    assert bad.level == "failed"
    assert "export SOME_KEY=" in bad.do


def test_a_context_that_the_worst_case_does_not_fit_is_found(values: dict[str, Any]) -> None:
    values["student"]["max_new_tokens"] = 600  # of a model of 512 positions
    bad = one(findings(values, offline=True), "context student", "512")
    assert bad.level == "failed"
    assert "max_new_tokens" in bad.do


@pytest.mark.parametrize(
    ("context", "level", "message"),
    [(900, "failed", "a plain question and its answer take"), (1200, "warning", "but the context has 1,200")],
)
def test_a_context_that_an_endpoint_tells_of_is_held_against_the_longest_calls(
    values: dict[str, Any], context: int, level: str, message: str
) -> None:
    with WordServer(TEACHERS, context=context) as short:
        values["teachers"][0] = reached("ada", short.base_url)
        reports = findings(values)
    assert one(reports, "context ada", message).level == level
    assert one(reports, "context bob", "the endpoint does not say").level == "ok"


def test_questions_that_are_in_both_splits_are_found(values: dict[str, Any], tmp_path: Path) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    test.write_text(test.read_text() + train.read_text().splitlines()[3] + "\n")
    assert one(findings(values, offline=True), "data", "1 questions are both in train and in test").level == "failed"
    test.write_text(test.read_text().replace("evening?", "evening??"))
    assert one(findings(values, offline=True), "overlap", "nearly in the training questions").level == "warning"


def test_too_little_disk_and_memory_are_found(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    reports = findings(values, offline=True, machine=Machine((), 1.0))
    assert one(reports, "disk", "free in").level == "warning"
    assert one(reports, "memory", "training: ").level == "warning"
    assert one(reports, "memory", "talking: ").level == "warning"


def test_the_disk_that_students_take_is_known_by_their_names_and_adapters_take_little() -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    whole, adapters = (load_recipe(recipes / f"{n}.yaml") for n in ("fair/svamp", "debate_reflect/mmlu_pro_physics"))
    assert whole.parallel == adapters.parallel == 1
    assert on_disk(whole, 12) == (4 * 7e9, 4 * 7e9 * (12 + 6)), "float32, and two checkpoints of the one in training"
    kept, _ = on_disk(adapters, 3) or (0, 0)
    assert 1e6 < kept < 1e8
    unnamed = whole.student.model_copy(update={"model": "somebody/small"})
    assert on_disk(whole.model_copy(update={"student": unnamed}), 12) is None


def test_what_would_save_memory_is_told_without_what_is_done_already(values: dict[str, Any]) -> None:
    def advice(**changes: Any) -> str:
        made = {**values, "sft": {**values["sft"], **changes}, "dpo": {**values["dpo"], **changes}}
        made["magdi"] = changes
        return one(findings(made, offline=True, machine=Machine((), 1.0)), "memory", "training: ").do

    assert "set gradient_checkpointing: true" in advice()
    assert "train adapters (lora)" in advice(lora=None)
    done = advice(gradient_checkpointing=True, lora={"r": 4}, quantise="nf4")
    assert done == "lower token_budget or max_length, or share it among GPUs (train: {processes: …, fsdp: true})"


def test_scorers_of_another_tokenizer_are_named(values: dict[str, Any], tmp_path: Path) -> None:
    other = shutil.copytree(values["student"]["model"], tmp_path / "other")
    words = json.loads((other / "tokenizer.json").read_text())
    *_, (first, i), (second, j) = words["model"]["vocab"].items()
    words["model"]["vocab"] |= {first: j, second: i}
    (other / "tokenizer.json").write_text(json.dumps(words))
    del values["dpo"], values["attempts"], values["trees"], values["sft"]
    values |= {"method": "debate_opd", "debate": {"prompts": "schoolhouse", "max_rounds": 2}, "arms": ["mt_opd"]}
    own = {"backend": "hf_local", "dtype": "float32", "max_new_tokens": 16}
    values["teachers"] = [
        {"name": "ada", "model": str(other), **own},
        {"name": "same", "model": values["student"]["model"], **own},
    ]
    reports = findings(values, offline=True)
    assert one(reports, "tokenizer ada", "differs").level == "warning"
    assert one(reports, "tokenizer same", "equal").level == "ok"


def test_what_a_local_model_s_template_does_is_said(values: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(values["student"]["model"], tmp_path / "own"))
    values["student"]["model"] = str(folder)
    assert "it has a system role" in one(findings(values, offline=True), "template student", "").said
    gemma = (Path(__file__).parent.parent / "chat_templates" / "gemma2.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(f"{gemma}{{{{ strftime_now('%Y') }}}}<think>")
    message = one(findings(values, offline=True), "template student", "").said
    assert "no system role" in message
    assert "open a thought (<think>)" in message
    assert "name the day" in message
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    assert one(findings(values, offline=True), "template student", "accepts no conversation").level == "failed"


OPD = {"debate": None, "sft": None, "dpo": None, "attempts": None, "trees": None, "arms": ["debate_opd"]}
BROKEN: dict[str, dict[str, Any]] = {
    "two of one name": {"student.name": "ada"},
    "a student that is not local": {"student.backend": "scripted"},
    "a student without a tokenizer": {"student.lacks": "tokenizer.json"},
    "a student without a chat template": {"student.lacks": "chat_template.jinja"},
    "a student of weights alone": {"student.lacks": "config.json"},
    "a broken config of a tokenizer": {"student.breaks": "tokenizer_config.json"},
    "a broken tokenizer": {"student.breaks": "tokenizer.json"},
    "a broken config": {"student.breaks": "config.json"},
    "a broken chat template": {"student.breaks": "chat_template.jinja"},
    "weights that were cut": {"student.cuts": "model.safetensors"},
    "weights that are none": {"student.breaks": "model.safetensors"},
    "a model of an unknown kind": {"student.of_kind": "nonesuch"},
    "a file for a folder": {"student.model": "{folder}/model.safetensors"},
    "a model of the Hub, offline": {"student.model": "Qwen/Qwen3-0.6B"},
    "options that nobody is shown": {"task.grader": "choice"},
    "a student served by vLLM that is not here": {"student.serve": {"python": "/bin/false"}},
    "a model that is not known": {"teacher.model": "bop"},
    "an address without /v1": {"teacher.base_url": "{root}"},
    "nobody there": {"teacher.base_url": "http://127.0.0.1:9/v1"},
    "a key that is not set": {"teacher.api_key_env": "VIVAVOCE_UNSET"},
    "prompts that are not there": {"debate.prompts": "nowhere"},
    "data that are not there": {"task.train_path": "nowhere.jsonl"},
    "more new tokens than the context holds": {"student.max_new_tokens": 100_000},
    "questions that nobody can act in": {"method": "opad", **OPD},
    "scorers without distributions": {"method": "debate_opd", "scorers": "teachers", **OPD},
}


@pytest.mark.parametrize("name", BROKEN)
def test_doctor_refuses_what_run_refuses(name: str, values: dict[str, Any], server: WordServer, tmp_path: Path) -> None:
    change = BROKEN[name]
    folder = Path(shutil.copytree(values["student"]["model"], tmp_path / "own"))
    values["student"]["model"] = str(folder)
    for key, value in change.items():
        section, _, field = key.partition(".")
        if field == "lacks":
            (folder / value).unlink()
        elif field == "breaks":
            (folder / value).write_text("{%")
        elif field == "cuts":
            (folder / value).write_bytes((folder / value).read_bytes()[:-99])
        elif field == "of_kind":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, "model_type": value}))
        elif field == "model" and section == "student":
            values["student"]["model"] = value.format(folder=folder)
        elif value == "choice":
            rows = [json.dumps({"question": f"Which is {i}?", "options": ["2", "3"], "answer": "B"}) for i in range(20)]
            (tmp_path / "choices.jsonl").write_text("\n".join(rows))
            choices = {"name": "jsonl", "path": str(tmp_path / "choices.jsonl"), "train_share": 0.5, "seed": 0}
            values["task"] = {**choices, field: value}
        elif section == "teacher":
            value = value.format(root=server.base_url.removesuffix("/v1"))
            values["teachers"] = [values["teachers"][0], {**values["teachers"][1], field: value}]
        elif field:
            values[section] = {**values[section], field: value}
        elif value is None:
            values.pop(section, None)
        else:
            values[section] = values["teachers"] if value == "teachers" else value
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))

    def refused(command: str) -> bool:
        done = CliRunner().invoke(app, [command, str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")])
        assert done.exception is None or isinstance(done.exception, UserError | SystemExit), done.exception
        return done.exit_code != 0

    assert refused("doctor")
    assert refused("run")


def engine(values: dict[str, Any], **serve: Any) -> dict[str, Any]:
    return {**values, "student": {**values["student"], "serve": serve}}


def test_an_engine_that_cannot_be_started_is_found(values: dict[str, Any], tmp_path: Path) -> None:
    def engine_finding(**serve: Any) -> Finding:
        (finding,) = [f for f in findings(engine(values, **serve), offline=True) if f.what == "serve student"]
        return finding

    assert "cannot run /nowhere/python" in engine_finding(python="/nowhere/python").said
    assert "vLLM is not installed" in engine_finding(python=sys.executable).said
    program = ["true"]
    assert engine_finding(command=program).level == "ok"
    assert "needs a GPU" in engine_finding(command=program, devices="0").said
    adapters = {**values, "sft": {**values["sft"], "lora": {"r": 64}}}
    reports = findings(engine(adapters, command=program, args=["--max-lora-rank", "16"]), offline=True)
    assert one(reports, "serve student", "are trained, and its --max-lora-rank is 16").level == "failed"
    for flag in ("--port=8000", "--host"):
        with pytest.raises(RecipeError, match="is chosen by the run"):
            engine_finding(command=program, args=[flag])
    with pytest.raises(RecipeError, match="an engine that scores is needed"):
        engine_finding(command=program, top_logprobs=20, while_training=False)


class _Engine(BaseHTTPRequestHandler):
    """An engine at an address; what it lacks is what FastAPI says of a path that is not there."""

    lacks: ClassVar[set[str]] = set()

    def _answer(self) -> None:
        code, body = (404, b'{"detail":"Not Found"}') if self.path in self.lacks else (200, b"{}")
        if self.path == "/v1/load_lora_adapter" and code == 200:
            code, body = 400, b'{"error": {"message": "give lora_name and lora_path"}}'
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None: ...


def test_an_engine_at_an_address_must_take_what_is_trained(values: dict[str, Any]) -> None:
    adapters = {**values, "sft": {**values["sft"], "lora": {"r": 4}}}
    with ThreadingHTTPServer(("127.0.0.1", 0), _Engine) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"

        def engine_finding(of: dict[str, Any], *lacks: str) -> Finding:
            _Engine.lacks = set(lacks)
            (finding,) = [f for f in findings(engine(of, url=url)) if f.what == "serve student"]
            return finding

        assert engine_finding(adapters).level == engine_finding(values).level == "ok"
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in engine_finding(adapters, "/v1/load_lora_adapter").do
        assert "VLLM_SERVER_DEV_MODE" in engine_finding(values, "/is_sleeping").do
        server.shutdown()
    assert "answers the health check" in engine_finding(values).said


def test_free_memory_counts_caches_as_free_and_keeps_to_the_group_around_the_process(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 64000 kB\nMemFree: 1000 kB\nMemAvailable: 32000 kB\n")
    assert free_memory(proc, groups) == 32000 * 1024
    job = groups / "slurm" / "job_7"
    job.mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/slurm/job_7\n")
    for folder, limit in ((job, "max"), (job.parent, "9000000")):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("5000000")
        (folder / "memory.stat").write_text("anon 4000000\ninactive_file 1000000\n")
    assert free_memory(proc, groups) == 5_000_000
    (proc / "self" / "cgroup").write_text("4:cpu,memory:/docker\n1:name=systemd:/\n")
    docker = groups / "memory" / "docker"
    docker.mkdir(parents=True)
    (docker / "memory.limit_in_bytes").write_text("3000000")
    (docker / "memory.usage_in_bytes").write_text("2500000")
    (docker / "memory.stat").write_text("cache 7\ntotal_inactive_file 0\n")
    assert free_memory(proc, groups) == 500_000


def test_memory_is_reckoned_from_files_configs_and_names(values: dict[str, Any], tmp_path: Path) -> None:
    def used(values: dict[str, Any], gpus: str) -> dict[str, Use]:
        recipe = check_recipe(values, Path("t"))
        return {f"{use.when} {use.device}": use for use in uses(recipe, Machine.of(gpus), {})}

    tiny = size_of(check_recipe(values, Path("t")).student)
    model = AutoModelForCausalLM.from_pretrained(values["student"]["model"])
    assert tiny is not None
    assert tiny.weights == sum(p.numel() for p in model.parameters())
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(Path(values["student"]["model"]) / "config.json", bare)
    assert size_of(AgentSpec.model_validate({"name": "a", "model": str(bare)})) == tiny._replace(bytes=2.0)
    by_name = size_of(AgentSpec.model_validate({"name": "a", "model": "Qwen/Qwen3-4B"}))
    assert by_name is not None
    assert by_name.weights == 4e9
    assert 2500 < by_name.width < 3500
    assert 30 < by_name.layers < 45
    assert size_of(AgentSpec.model_validate({"name": "a", "model": "some/model"})) is None

    large = {**values, "student": {**values["student"], "model": "Qwen/Qwen3-4B"}}
    (alone,) = [use for when, use in used(large, "1x80").items() if when.startswith("training")]
    assert alone.parts["student"] == 4e9 * 16, "weight, gradient and two states in float32"
    shared = used({**large, "train": {"processes": 8, "fsdp": True}}, "8x80")["training each of 8 GPUs"]
    assert 8e9 < shared.parts["student"] < 9.5e9
    small = {key: {**large[key], "adam_bits": 8} for key in ("sft", "dpo")}
    (eight,) = [use for when, use in used({**large, **small}, "1x80").items() if when.startswith("training")]
    assert eight.parts["student"] == 4e9 * 10
    with pytest.raises(RecipeError, match="names no GPUs"):
        Machine.of("eight")


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"lora": None}, {}, {"lora": None, "gradient_checkpointing": True}], ids=str)
def test_the_memory_of_a_training_on_a_cpu_is_about_what_was_reckoned(
    how: dict[str, Any], values: dict[str, Any], tmp_path: Path
) -> None:
    config = Qwen3Config.from_pretrained(values["student"]["model"])
    config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.head_dim = 256, 768, 6, 64
    config.num_attention_heads, config.num_key_value_heads, config.layer_types = 4, 2, ["full_attention"] * 6
    config.max_position_embeddings = 2048
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "model")
    schoolhouse_tokenizer.save(tmp_path / "model")
    rows = [
        {"prompt": [{"role": "user", "content": f"{i} " + "a=3; b=a-8; " * 12}], "completion": "c=b+7; " * 60}
        for i in range(32)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = {**how, "max_steps": 2, "rows_per_step": 8, "threads": 1}
    changes = [word for key, value in how.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "vivavoce.cli", "train", "sft", tmp_path / "rows.jsonl"]
    process = subprocess.Popen([*command, "--model", tmp_path / "model", "--out", tmp_path / "out", *changes])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    made = {**values, "student": {**values["student"], "model": str(tmp_path / "model")}, "sft": how}
    made["dpo"] = {key: value for key, value in how.items() if key != "rows_per_step"}
    recipe = check_recipe(made, Path("t"))
    (use,) = [one for one in uses(recipe, Machine((), 1e12), {}) if one.when == "training"]
    assert 0.75 < use.needed / (1024 * used.ru_maxrss) < 1.35, use.summary
