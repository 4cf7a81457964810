"""Recipes are strict: every mistake is named with file, line and the nearest known key, before anything is spent."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.cli.runs import run_folder
from vivavoce.config import load_recipe
from vivavoce.errors import RecipeError
from vivavoce.finding import find_recipe, recipes
from vivavoce.methods.debate_reflect import Options

GOOD = """\
method: debate_reflect
task: {name: schoolhouse, train: 5, test: 5}
teachers:
  - name: one
    backend: scripted
    replies: ["4"]
student:
  name: pupil
  model: some/model
debate:
  max_rounds: 2
dpo:
  beta: 0.2
"""


def recipe(tmp_path: Path, text: str = GOOD, *overrides: str) -> Options:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, "utf-8")
    loaded = load_recipe(path, overrides)
    assert isinstance(loaded, Options)
    return loaded


def test_a_good_recipe_loads_and_each_default_comes_from_its_class(tmp_path: Path) -> None:
    loaded = recipe(tmp_path)
    assert (loaded.dpo.beta, loaded.debate.max_rounds, loaded.teachers[0].backend) == (0.2, 2, "scripted")
    assert loaded.sft == type(loaded.sft)()


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        (
            "max_rounds",
            "max_round",
            r"unknown key `debate\.max_round`, did you mean `max_rounds`(?s:.*)recipe\.yaml:11",
        ),
        (
            "replies",
            "temprature",
            r"unknown key `teachers\.0\.temprature`, did you mean `temperature`(?s:.*)recipe\.yaml:6",
        ),
        ("train: 5", "trian: 5", r"unknown key `task\.trian`, did you mean `train`(?s:.*)recipe\.yaml:2"),
        ("model:", "modle:", r"unknown key `student\.modle`, did you mean `model`(?s:.*)recipe\.yaml:9"),
        ("beta: 0.2", "beta: -1", r"`dpo\.beta`: must be greater than 0 \(got -1\)(?s:.*)recipe\.yaml:13"),
        (
            "beta: 0.2",
            "objective: triples",
            r"`dpo\.objective`: must be 'pairs', 'listwise', 'orpo', 'simpo' or 'kto'(?s:.*)recipe\.yaml:13",
        ),
        ("scripted", "scripted_", r"unknown agent `scripted_`, did you mean `scripted`(?s:.*)recipe\.yaml:5"),
        (
            "name: schoolhouse",
            "name: scoolhouse",
            r"unknown task `scoolhouse`, did you mean `schoolhouse`(?s:.*)recipe\.yaml:2",
        ),
        ("debate_reflect", "debate_reflex", r"unknown method `debate_reflex`, did you mean `debate_reflect`"),
        (
            "  max_rounds: 2",
            "  max_rounds: 2\n  max_rounds: 3",
            r"key `max_rounds` appears twice(?s:.*)recipe\.yaml:12",
        ),
        ("debate:", "debate: {", r"not YAML: a \{ is opened and not closed(?s:.*)recipe\.yaml:10"),
        ("  max_rounds", "\tmax_rounds", r"there is a tab: indent with spaces(?s:.*)recipe\.yaml:11"),
        ('"4"', '"4', r"quotation mark is opened and never closed(?s:.*)recipe\.yaml:6"),
        ("task:", "name:mine\ntask:", r"`: `, a colon and a space, is missing(?s:.*)recipe\.yaml:2"),
        ("max_rounds: 2", "beta: 1", r"unknown key `debate\.beta`: `beta` belongs to `dpo`(?s:.*)recipe\.yaml:11"),
        ("debate:", "max_rounds: 3\ndebate:", "unknown key `max_rounds`: `max_rounds` belongs to `debate`"),
        ("debate:", "learning_rate: 1\ndebate:", "`learning_rate` belongs to `sft`, `dpo` or `magdi`"),
        ("debate:", "function: a\ndebate:", "`function` belongs to `teachers`"),
        ("train: 5", "train: 5, arms: [x]", r"`task\.arms`: `arms` belongs at the top of the recipe"),
        ("debate:", "review: {}\ndebate:", "`review`: it is a section of peer_review, but this is another method"),
        ("debate:", "budget: {money: 5}\ndebate:", "`money` belongs to `budget.run` or `budget.question`"),
        ("debate:", "seeds: 3\ndebate:", r"`seeds`: must be a list, but this is a number \(got 3\): put it in \[ \]"),
        ("debate:", "seeds: [yes]\ndebate:", r"`seeds\.0`: must be a number, but this is true or false"),
        ("debate:", "student: tiny\ndebate:", "key `student` appears twice"),
        (
            "debate:",
            "judge: tiny\ndebate:",
            r"`judge`: must be keys and values, such as \{agents: …\}, but this is text",
        ),
        ("debate:", "pairs: all arms\ndebate:", r"`pairs`: must be 'all' .*, or must be a list, but this is text"),
        ("debate:", "pairs: [[a]]\ndebate:", r"`pairs\.0\.1`"),
        ("debate:", "name: a b\ndebate:", "`name`: must be a name for a folder: letters, digits"),
        ("debate:", "name: 5\ndebate:", r"`name`: must be text, but this is a number \(got 5\): put it in quotes"),
        ("debate:", "arms: [debate_reflct]\ndebate:", "unknown arm `debate_reflct`, did you mean `debate_reflect`"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_allowed(
    tmp_path: Path, wrong: str, right: str, message: str
) -> None:
    assert wrong in GOOD
    with pytest.raises(RecipeError, match=message):
        recipe(tmp_path, GOOD.replace(wrong, right, 1))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("{name: scoolhouse}", r"unknown task `scoolhouse`, did you mean `schoolhouse`(?s:.*)recipe\.yaml:16"),
        (
            "{name: schoolhouse, tset: 5}",
            r"unknown key `also_test\.mix\.tset`, did you mean `test`(?s:.*)recipe\.yaml:16",
        ),
        ("{test: 5}", r"key `also_test\.mix\.name` is missing(?s:.*)recipe\.yaml:16"),
        ("{name: schoolhouse, kinds: [mux]}", r"also_test\.mix\.kinds\.0(?s:.*)recipe\.yaml:16"),
    ],
)
def test_a_mistake_in_a_further_test_is_told_with_its_line(tmp_path: Path, test: str, message: str) -> None:
    also = "also_test:\n  sum: {name: schoolhouse, kinds: [sum]}\n  mix: "
    assert list(recipe(tmp_path, f"{GOOD}{also}{{name: schoolhouse}}\n").also_test) == ["sum", "mix"]
    with pytest.raises(RecipeError, match=message):
        recipe(tmp_path, f"{GOOD}{also}{test}\n")


def test_the_name_of_a_further_test_leads_out_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="also_test"):
        recipe(tmp_path, GOOD + "also_test:\n  ..: {name: schoolhouse}\n")


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)max_round.*:11.*beta.*:13"):
        recipe(tmp_path, GOOD.replace("max_rounds", "max_round").replace("0.2", "x"))


def test_overrides_reach_into_sections_and_lists(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, GOOD, "dpo.beta=0.5", "teachers.0.temperature=0.9", "sft.lora=null")
    assert (loaded.dpo.beta, loaded.teachers[0].temperature, loaded.sft.lora) == (0.5, 0.9, None)


@pytest.mark.parametrize("override", ["dpo", "=3", "teachers.7.name=x", "dpo.bta=1", "method.x=1"])
def test_a_wrong_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError):
        recipe(tmp_path, GOOD, override)


def test_a_yaml_tag_makes_no_object(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not YAML"):
        recipe(tmp_path, GOOD + "name: !!python/object/apply:os.getcwd []\n")


def test_a_resolved_recipe_loads_again_to_the_same(tmp_path: Path) -> None:
    loaded = recipe(tmp_path)
    copy = tmp_path / "again.yaml"
    copy.write_text(yaml.safe_dump(loaded.model_dump(mode="json")), "utf-8")
    assert load_recipe(copy) == loaded


@pytest.mark.parametrize("path", recipes().values(), ids=str)
def test_every_recipe_in_the_repository_is_valid(path: Path) -> None:
    assert load_recipe(path).method


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_recipes_are_read_in_utf_8_and_utf_16(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD.replace("\n", "\r\n") + "# Zoë\n", encoding, newline="")
    assert load_recipe(path).student.name == "pupil"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("# Zoë\n".encode("latin-1"), r"not UTF-8: byte 0xeb(?s:.*)recipe\.yaml:30(?s:.*)save it as UTF-8"),
        (b"\0", r"the character U\+0000 is not allowed there(?s:.*)recipe\.yaml:30"),
        (b"seeds: [2024-13-45]\n", "not YAML: month must be in 1..12"),
        (b"seeds: &a [*a]\n", "not YAML: maximum recursion depth"),
        (b"[1, 2]: 3\n", r"a key is a list or a mapping(?s:.*)recipe\.yaml:30"),
    ],
)
def test_what_no_recipe_can_hold_is_an_error_of_the_recipe(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(GOOD.encode() + data)
    with pytest.raises(RecipeError, match=message.replace(":30", f":{GOOD.count(chr(10)) + 1}")):
        load_recipe(path)


def test_a_folder_that_is_no_run_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="neither a recipe nor a run"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("name", [".", "..", "a/b", ""])
def test_the_name_of_a_run_leads_out_of_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="`name`"):
        recipe(tmp_path, f"{GOOD}name: '{name}'\n")


ON_STATES = GOOD.replace("debate_reflect", "debate_opd").replace("dpo:\n  beta: 0.2\n", "")
MBPP = "{name: mbpp, path: rows.jsonl}"


@pytest.mark.parametrize(
    ("task", "debate", "prompts"),
    [
        (MBPP, "max_rounds: 2", "code"),
        ("{name: humaneval, path: rows.jsonl}", "protocol: act_debate", "code"),
        ("{name: livecodebench, path: rows.jsonl}", "max_rounds: 2", "code"),
        (f"{{name: prompts, path: rows.jsonl, exam: {MBPP}}}", "protocol: act_debate", "code"),
        (MBPP, "prompts: general", "general"),
        (MBPP, "protocol: debate_reflect", "general"),  # `code` has no prompts for critiques
        ("{name: gsm8k}", "max_rounds: 2", "general"),
        ("{name: schoolhouse}", "max_rounds: 2", "schoolhouse"),
    ],
)
def test_a_debate_has_the_prompts_of_its_task_unless_the_recipe_names_some(
    tmp_path: Path, task: str, debate: str, prompts: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(ON_STATES.replace("{name: schoolhouse, train: 5, test: 5}", task).replace("max_rounds: 2", debate))
    assert load_recipe(path).rules.prompts == prompts
    path.write_text(path.read_text().replace(f"debate:\n  {debate}\n", ""))
    if "protocol" not in debate and "prompts" not in debate:
        assert load_recipe(path).rules.prompts == prompts, "without the section too"


def test_a_task_of_ones_own_names_its_prompts_and_the_plan_says_whose_they_are(tmp_path: Path) -> None:
    head = "from vivavoce.tasks.jsonl import Options, task as jsonl\nPROMPTS = 'code'\n"
    (tmp_path / "mine.py").write_text(head + "def task(options): return jsonl(options)\n")
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "1+{n}?", "answer": "{n + 1}"}}\n' for n in (1, 2)))
    own_task = (
        f"{{name: {tmp_path / 'mine.py'}, path: {tmp_path / 'q.jsonl'}, train_share: 0.5, seed: 0, grader: number}}"
    )
    text = ON_STATES.replace("{name: schoolhouse, train: 5, test: 5}", own_task)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert load_recipe(path).rules.prompts == "code"
    shown = CliRunner().invoke(app, ["plan", str(path)])
    assert "prompts: the set code (that of" in " ".join(shown.stderr.split())
    shown = CliRunner().invoke(app, ["plan", str(path), "--set", "debate.prompts=general"])
    assert "the set general (that of" in " ".join(shown.stderr.split())


def test_recipes_are_found_by_short_names_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "schoolhouse/demo" in recipes()
    for name in ("demo", "schoolhouse/demo", "demo.yaml", "gsm8k_openai", "recipes/schoolhouse/demo.yaml"):
        assert load_recipe(find_recipe(Path(name))).name
    (tmp_path / "recipes" / "mine").mkdir(parents=True)
    (tmp_path / "recipes" / "mine" / "demo.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match=r"several recipes are called `demo`(?s:.*)mine/demo, schoolhouse/demo"):
        find_recipe(Path("demo"))
    with pytest.raises(RecipeError, match="there is no recipe `dmo`, did you mean `demo`"):
        find_recipe(Path("dmo"))
    with pytest.raises(RecipeError, match="the folder is neither a recipe nor a run"):
        find_recipe(Path("recipes"))


def test_a_runs_folder_stands_for_its_recipe_and_goes_on_there(tmp_path: Path) -> None:
    assert run_folder(tmp_path / "r.yaml", recipe(tmp_path)) == Path("runs/run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(GOOD)
    assert find_recipe(tmp_path / "run") == tmp_path / "run" / "recipe.yaml"
    assert run_folder(tmp_path / "run", recipe(tmp_path)) == tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("sft.learning_rate=.inf", "`sft.learning_rate`: must be a finite number"),
        ("dpo.beta=.nan", "`dpo.beta`: must be a finite number"),
        ("student.temperature=.inf", "`student.temperature`: must be a finite number"),
        ("seeds=[1, 1]", "a seed appears twice"),
        ("seeds=[-1]", "seeds are whole numbers from 0 up"),
        ("seed=99999999999999999999", "`seed`: must be less than"),
        (f"name={'x' * 300}", "`name`: at most 100 characters are allowed"),
    ],
)
def test_numbers_and_names_that_would_fail_later_are_refused_and_nothing_else_is_said(change: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(Path(__file__).parent.parent / "recipes" / "schoolhouse" / "demo.yaml", [change])
    assert says in caught.value.what
    assert "\n" not in caught.value.what, "one mistake is told once"
