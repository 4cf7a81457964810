from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tests.agents.faulty import FaultyServer, completion
from tests.command import viva
from tests.environments.playing import observations

from vivavoce.agents import Agent, open_agent
from vivavoce.agents.call_text import write_call
from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.environments.bfcl.conversations import CATEGORIES, Conversation, read_conversations
from vivavoce.environments.bfcl.file_system import FileSystem
from vivavoce.environments.bfcl.service import call_service
from vivavoce.environments.bfcl.several_turns import SeveralTurns
from vivavoce.environments.environment import Action, Demonstrator, Environment, Episode
from vivavoce.environments.episodes import play, reference
from vivavoce.environments.words import for_agent
from vivavoce.errors import DataError
from vivavoce.records import Message, Sampling, ToolCall
from vivavoce.tasks.bfcl_turns_checking import check_category, faults_of, mutations

WORDS = Action("Done.")


@pytest.fixture(scope="module")
def base(bfcl: Path) -> SeveralTurns:
    return SeveralTurns(read_conversations(bfcl, "base"))


@pytest.fixture(scope="module")
def miss_func(bfcl: Path) -> SeveralTurns:
    return SeveralTurns(read_conversations(bfcl, "miss_func"))


@pytest.fixture(scope="module")
def long_context(bfcl: Path) -> SeveralTurns:
    return SeveralTurns(read_conversations(bfcl, "long_context"))


def calls(*named: tuple[str, dict[str, Any]]) -> Action:
    return Action("", tuple(ToolCall(*call) for call in named))


def expected(world: SeveralTurns, task: str) -> list[list[ToolCall]]:
    return [list(turn.expected) for turn in world.conversations[task].turns]


@pytest.mark.parametrize("category", CATEGORIES)
def test_expected_calls_pass_and_every_mutation_that_leaves_a_trace_fails(category: str, bfcl: Path) -> None:
    """Every so-manieth row; ``viva check-tasks`` goes through all of them."""
    world = SeveralTurns(read_conversations(bfcl, category))
    for talk in islice(world.conversations.values(), 0, None, 9):
        assert faults_of(world, talk, [turn.expected for turn in talk.turns]) == [], talk.id
        made = list(mutations(talk))
        assert sum(not mutation.traceless for mutation in made) > len(talk.turns) / 2
        for mutation in made:
            assert mutation.traceless or faults_of(world, talk, mutation.calls), (talk.id, mutation.what)


def test_mutations_leave_out_change_add_and_are_too_early(miss_func: SeveralTurns) -> None:
    talk = miss_func.conversations["multi_turn_miss_func_0"]
    made = list(mutations(talk))
    number, arguments = (sum(f(call) for turn in talk.turns for call in turn.expected) for f in (lambda _: 1, _given))
    assert len(made) == number + arguments + 2
    assert made[0].what == "cd of turn 1 is left out"
    assert any(one.what == "what is asked for in turn 4 is done in turn 3" for one in made)
    assert made[-1].what == "mkdir is called, and nobody asked"


def _given(call: ToolCall) -> int:
    return len(call.arguments)


def test_what_leaves_no_trace_is_counted_apart_with_the_reason(base: SeveralTurns) -> None:
    def traceless(task: str) -> dict[str, str]:
        return {one.what: one.traceless for one in mutations(base.conversations[task]) if one.traceless}

    assert traceless("multi_turn_base_1") == {
        "a of ls in turn 1 is false": "no other value makes a difference",
        "lines of tail in turn 4 is 21": "no other value makes a difference",
    }
    assert traceless("multi_turn_base_6") == {}, "what is written into a file that was not made is refused"


def test_the_user_speaks_again_once_the_agent_has_said_something_without_a_call(base: SeveralTurns) -> None:
    assert isinstance(base, Environment)
    first, listed, second = observations(base, "multi_turn_base_1", calls(("ls", {"a": True})), WORDS)
    assert first.messages[0]["content"].startswith("I am alex.")
    assert json.loads(listed.messages[0]["content"]) == {"current_directory_content": ["workspace"]}
    assert second.messages[0]["content"].startswith("Go to workspace directory")
    assert not second.done
    assert base.amiss() == []
    seen = observations(base, "multi_turn_base_1", *[WORDS] * 4)
    assert [one.done for one in seen] == [False] * 4 + [True]
    assert seen[-1].messages == ()
    assert base.succeeded() is False
    assert base.amiss()[0] == "turn 1: nothing was called"


def test_an_error_is_a_result_and_the_turn_goes_on(base: SeveralTurns) -> None:
    seen = observations(base, "multi_turn_base_1", calls(("cd", {"folder": "nowhere"}), ("pwd", {})))[-1]
    assert [json.loads(message["content"]) for message in seen.messages] == [
        {"error": "there is no directory 'nowhere' here"},
        {"current_working_directory": "/alex"},
    ]
    malformed = observations(base, "multi_turn_base_1", Action("?", malformed="a call is no JSON"))[-1]
    assert malformed.messages == ({"role": "tool", "content": "Error: a call is no JSON"},)


def test_a_turn_is_right_by_states_and_results_however_it_was_come_by(base: SeveralTurns) -> None:
    """More calls, another order, a way back: where one stands is not judged, what was seen and left is."""
    task = "multi_turn_base_5"
    first, *rest = (Action("", tuple(turn)) for turn in expected(base, task))
    around = calls(("ls", {}), ("cd", {"folder": "archive"}), ("cd", {"folder": ".."}))
    steps = [around, first, around, WORDS, *(step for turn in rest for step in (turn, WORDS))]
    assert observations(base, task, *steps)[-1].done
    assert (base.succeeded(), base.amiss()) == (True, [])
    extra = calls(("touch", {"file_name": "more"}))
    observations(base, task, first, extra, WORDS)
    assert base.amiss() == ["turn 1: GorillaFileSystem is not as it should be"]
    only = calls(*((call.name, call.arguments) for call in expected(base, task)[1][1:]))
    observations(base, task, first, WORDS, only, WORDS)
    assert base.amiss() == ["turn 2: nothing returned what cat was to return"]


def test_a_result_of_an_earlier_turn_counts_but_something_has_to_be_called(base: SeveralTurns) -> None:
    task = "multi_turn_base_43"
    early = calls(("find", {"path": ".", "name": "annual_report.txt"}), ("ls", {"a": True}))
    observations(base, task, early, WORDS, calls(("pwd", {})), WORDS)
    assert base.amiss() == []
    observations(base, task, early, WORDS, WORDS)
    assert base.amiss() == ["turn 2: nothing was called"]


def test_after_too_many_actions_in_a_turn_it_is_over_and_no_success(bfcl: Path) -> None:
    world = SeveralTurns(read_conversations(bfcl, "base"), actions=3)
    seen = observations(world, "multi_turn_base_1", *[calls(("ls", {"a": True}))] * 3)
    assert [one.done for one in seen] == [False, False, False, True]
    assert world.succeeded() is False


def test_a_function_can_be_called_from_the_turn_on_in_which_it_is_given(miss_func: SeveralTurns) -> None:
    task = "multi_turn_miss_func_0"
    turns = [Action("", tuple(turn)) for turn in expected(miss_func, task)]
    until = [turns[0], WORDS, turns[1], WORDS]
    refused = observations(miss_func, task, *until, calls(("sort", {"file_name": "final_report.pdf"})))[-1]
    assert refused.messages[0]["content"] == '{"error":"there is no function \'sort\'"}'
    assert "sort" not in {tool.name for tool in miss_func.tools}
    given = observations(miss_func, task, *until, WORDS)[-1]
    assert given.messages == ({"role": "user", "content": "You can call more functions now. Please do it with them."},)
    assert "sort" in {tool.name for tool in miss_func.tools}
    assert "cp" not in {tool.name for tool in miss_func.tools}  # excluded for good
    assert observations(miss_func, task, *until, WORDS, turns[3], WORDS, turns[4], WORDS)[-1].done
    assert miss_func.succeeded()


def test_who_acts_before_the_user_has_said_enough_is_wrong(bfcl: Path) -> None:
    world = SeveralTurns(read_conversations(bfcl, "miss_param"))
    task, asked = next(
        (talk.id, turn)
        for talk in world.conversations.values()
        for turn in talk.turns[1:]
        if not talk.turns[0].expected and turn.expected[0].name == "fillFuelTank"
    )
    observations(world, task, Action("", asked.expected), WORDS)
    assert world.amiss() == ["turn 1: VehicleControlAPI is not as it should be"]
    observations(world, task, Action("How much?"))
    assert world.amiss() == []


def test_a_thought_that_was_cut_off_does_not_say_that_something_is_missing(miss_func: SeveralTurns) -> None:
    task = "multi_turn_miss_func_0"
    turns = [Action("", tuple(turn)) for turn in expected(miss_func, task)]
    observations(miss_func, task, turns[0], WORDS, turns[1], WORDS, Action("<think>Which function could"))
    assert miss_func.amiss() == ["turn 3: nothing was said"]


def test_functions_that_are_asked_for_before_they_are_given_are_not_expected(miss_func: SeveralTurns) -> None:
    """One official row expects ``tail`` in a turn in which it withholds it."""
    talk = miss_func.conversations["multi_turn_miss_func_49"]
    assert talk.beyond == ("tail in turn 2",)
    assert [call.name for call in talk.turns[1].expected] == ["sort"]
    assert [one.id for one in miss_func.conversations.values() if one.beyond] == [talk.id]


def test_long_context_is_long_and_its_expected_calls_follow_from_what_is_there(
    long_context: SeveralTurns, base: SeveralTurns
) -> None:
    def returned(world: SeveralTurns, row: int, *made: tuple[str, dict[str, Any]]) -> Any:
        services = _row(world, row).fresh_services()
        return [call_service(services, ToolCall(*call)) for call in made][-1]

    usage = (("cd", {"folder": "data"}), ("du", {"human_readable": True}))
    assert returned(base, 28, *usage) == {"disk_usage": "205 bytes"}
    assert returned(long_context, 28, *usage) == {"disk_usage": "6755 bytes"}
    count = ("wc", {"file_name": "Spring2023Draft", "mode": "c"})
    assert returned(long_context, 32, count) == {"count": 3287, "type": "characters"}
    compared = ("diff", {"file_name1": "file1.txt", "file_name2": "file2.txt"})
    written = expected(long_context, "multi_turn_long_context_20")[1][-1].arguments["content"]
    assert returned(long_context, 20, ("cd", {"folder": "documents"}), compared) == {"diff_lines": written}
    listed = returned(long_context, 11, ("ls", {}))["current_directory_content"]
    assert ", ".join(listed) == expected(long_context, "multi_turn_long_context_11")[1][0].arguments["content"]
    # the end of a file that is looked at stays what it is
    assert returned(long_context, 20, ("cd", {"folder": "documents"}), ("tail", {"file_name": "file1.txt"})) == {
        "last_lines": "The quick brown fox jumps over the lazy dog."
    }
    assert len(json.dumps(_files(long_context, 28))) > 10 * len(json.dumps(_files(base, 28)))


def _files(world: SeveralTurns, row: int) -> Any:
    return _row(world, row).config[FileSystem.NAME]


def _row(world: SeveralTurns, row: int) -> Conversation:
    (talk,) = (talk for id, talk in world.conversations.items() if id.endswith(f"_{row}"))
    return talk


def test_an_episode_leaves_nothing_behind_for_the_next(base: SeveralTurns) -> None:
    talk = base.conversations["multi_turn_base_90"]  # a list of mentions of the configuration's own
    before = json.dumps(dict(talk.config))
    more = calls(("mention", {"tweet_id": 0, "mentioned_usernames": ["@ada"]}))
    observations(base, talk.id, more)
    assert base.state()["services"]["TwitterAPI"]["tweets"]["0"]["mentions"] == ["@TravelBuddy", "@ada"]
    observations(base, talk.id)
    assert base.state()["services"]["TwitterAPI"]["tweets"]["0"]["mentions"] == ["@TravelBuddy"]
    assert json.dumps(dict(talk.config)) == before


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_reference_makes_the_expected_calls_and_succeeds(category: str, bfcl: Path) -> None:
    world = SeveralTurns(read_conversations(bfcl, category))
    assert isinstance(world, Demonstrator)
    for talk in islice(world.conversations.values(), 13, None, 25):  # row 38 removes 30 files in long_context
        episode = asyncio.run(reference(world, talk.id, 1))
        assert (episode.ended, episode.success) == ("done", True)
        made = [call for step in episode.steps for call in step.action.calls]
        assert made == [call for turn in talk.turns for call in turn.expected]


def acted(world: Environment, agent: Agent, task: str, folder: Path) -> Episode:
    async def run() -> Episode:
        with Journal(folder / "journal.sqlite") as journal:
            try:
                return await play(world, agent, task, 1, Sampling(), journal)
            finally:
                await agent.aclose()

    return asyncio.run(run())


def test_an_agent_that_reads_tools_in_words_is_told_of_new_ones_when_they_come(
    miss_func: SeveralTurns, tmp_path: Path
) -> None:
    task = "multi_turn_miss_func_0"
    replies = [text for turn in expected(miss_func, task) for text in ("".join(map(write_call, turn)), "Done.") if text]

    def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        return replies[sum(message["role"] == "assistant" for message in messages)]

    agent = Scripted("ada", respond)
    episode = acted(for_agent(miss_func, agent), agent, task, tmp_path)
    assert (episode.ended, episode.success) == ("done", True)
    new_tools = [message["content"] for message, _ in episode.masked() if "<tools>" in message["content"]]
    assert [text.count('"name": "sort"') for text in new_tools] == [0, 1]
    assert new_tools[1].startswith("You can call more functions now.")
    assert new_tools[1].count('"type": "function"') == 1


def test_an_endpoint_with_tools_of_its_own_is_offered_those_of_the_turn(
    miss_func: SeveralTurns, tmp_path: Path
) -> None:
    with FaultyServer() as server:
        server.script = [completion("I cannot.")] * 5
        agent = open_agent("ada", "openai_chat", {"model": "m", "base_url": server.base_url, "api_key_env": None})
        episode = acted(miss_func, agent, "multi_turn_miss_func_0", tmp_path)
    assert (episode.ended, episode.success, len(episode.steps)) == ("done", False, 5)
    offered = [{tool["function"]["name"] for tool in body["tools"]} for body in server.requests]
    assert ["sort" in names for names in offered] == [False, False, False, True, True]


ROW = {
    "id": "r",
    "question": [[{"role": "user", "content": "Where am I?"}]],
    "initial_config": {},
    "involved_classes": ["GorillaFileSystem"],
}


@pytest.mark.parametrize(
    ("changed", "answer", "wrong"),
    [
        ({}, {"ground_truth": [["pwd()"], []]}, "no answer to each of its turns"),
        ({}, {"id": "s"}, "no answer to each of its turns"),
        ({}, {"ground_truth": [["pwd(import os)"]]}, "no call of a function"),
        ({}, {"ground_truth": [["cd(folder=open('x'))"]]}, "no call of a function"),
        ({"involved_classes": ["SpaceAPI"]}, {}, "there is no class 'SpaceAPI'"),
        ({"question": "?"}, {}, "question"),
    ],
)
def test_rows_that_cannot_be_played_are_named(
    changed: dict[str, Any], answer: dict[str, Any], wrong: str, bfcl: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=wrong):
        written(tmp_path, bfcl, {**ROW, **changed}, answer)


def written(folder: Path, bfcl: Path, row: dict[str, Any], answer: dict[str, Any]) -> SeveralTurns:
    name = "BFCL_v4_multi_turn_base.json"
    (folder / "possible_answer").mkdir()
    (folder / "multi_turn_func_doc").symlink_to(bfcl / "multi_turn_func_doc")
    (folder / name).write_text(json.dumps(row), "utf-8")
    (folder / "possible_answer" / name).write_text(json.dumps({"id": "r", "ground_truth": [["pwd()"]], **answer}))
    return SeveralTurns(read_conversations(folder, "base"))


def test_every_class_can_be_played_in_one_conversation(bfcl: Path, tmp_path: Path) -> None:
    """Stocks and flights, of which the rows tried have none."""
    way = "'RMS', travel_to='SFO', travel_date='2024-11-10', travel_class='economy'"
    row = {
        **ROW,
        "question": [[{"role": "user", "content": "Watch QUAS."}], [{"role": "user", "content": "Book it."}]],
        "involved_classes": ["TradingBot", "TravelAPI"],
        "initial_config": {
            "TradingBot": {"authenticated": True, "stocks": {"QUAS": {"price": 1.0}}},
            "TravelAPI": {"access_token": "t", "credit_card_list": {"c": {"balance": 900.0}}},
        },
    }
    book = f"book_flight(access_token='t', card_id='c', travel_from={way})"
    answer = {"ground_truth": [["add_to_watchlist('QUAS')"], [f"get_flight_cost({way})", book]]}
    written(tmp_path, bfcl, row, answer)
    checked = check_category("base", tmp_path)
    assert (checked.rows, checked.accepted, checked.rejected, checked.off) == (1, 1, 1, [])


def test_an_unknown_task_and_a_missing_folder_are_said(base: SeveralTurns, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no task 'multi_turn_base_9999'"):
        asyncio.run(base.reset("multi_turn_base_9999", 0))
    with pytest.raises(DataError, match="cannot read the file"):
        SeveralTurns(read_conversations(tmp_path, "base"))


def test_the_command_line_checks_a_named_category(bfcl: Path) -> None:
    done = viva("check-tasks", "--data", bfcl.parent, "--task", "bfcl_multi_turn_base")
    output = " ".join(done.stdout.split())
    assert output == (
        "bfcl_multi_turn_base 100 rows 100 gold accepted 100 wrong rejected 23 wrong ones counted apart "
        "(BFCL_v4_multi_turn_base.json)"
    )
    assert done.stderr.count("odd: ") == 23
    assert done.returncode == 0
