from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.command import viva
from tests.environments.playing import observations

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.environments.environment import Action, Environment, Observation
from vivavoce.environments.episodes import play
from vivavoce.environments.tau2.airline import AIRLINE
from vivavoce.environments.tau2.desk import Tau2
from vivavoce.environments.tau2.domain import Domain
from vivavoce.environments.tau2.retail import RETAIL
from vivavoce.environments.tau2.scenario import untold
from vivavoce.environments.tau2.users import PlayedUser, ScriptedUser, in_first_person
from vivavoce.errors import AgentError, DataError
from vivavoce.records import Message, Sampling, ToolCall
from vivavoce.tasks.tau2_checking import check_domain, faults_of, mutations

LOOK = ToolCall("find_user_id_by_name_zip", {"first_name": "Yusuf", "last_name": "Rossi", "zip": "19122"})


@pytest.fixture(scope="module")
def shop(tau2: Path) -> Tau2:
    return Tau2(RETAIL, tau2)


@pytest.fixture(scope="module")
def airline(tau2: Path) -> Tau2:
    return Tau2(AIRLINE, tau2)


def after(desk: Tau2, task: str, *actions: Action) -> Observation:
    return observations(desk, task, *actions)[-1]


def answer(desk: Tau2, task: str, *calls: tuple[str, dict[str, Any]]) -> str:
    """What the last call is answered."""
    return after(desk, task, *(Action("", (ToolCall(*call),)) for call in calls)).messages[0]["content"]


@pytest.mark.parametrize(("domain", "tasks"), [(RETAIL, 94), (AIRLINE, 40)], ids=["retail", "airline"])
def test_the_expected_calls_of_every_task_pass_and_every_mutation_of_them_fails(
    domain: Domain, tasks: int, tau2: Path
) -> None:
    checked = check_domain(domain, tau2)
    assert checked.off == []
    assert checked.rows == checked.accepted == checked.rejected == tasks


def test_mutations_leave_out_change_and_add(shop: Tau2) -> None:
    scenario = shop.scenarios["0"]
    what = [one for one, *_ in mutations(shop, scenario)]
    assert what[0] == "exchange_delivered_order_items is left out"
    assert len(what) == 1 + 4 + 1  # each of four arguments; the record that nobody spoke of
    assert not faults_of(shop, scenario, scenario.expected)


def test_policy_then_customer_then_tools_then_customer(shop: Tau2) -> None:
    assert isinstance(shop, Environment)
    first = after(shop, "0")
    assert [m["role"] for m in first.messages] == ["system", "user"]
    assert "# Retail agent policy" in first.messages[0]["content"]
    assert first.messages[1]["content"].startswith("I received my order #W2378156 and wish to exchange")
    assert first.messages[1]["content"].endswith("I am Yusuf Rossi in zip code 19122.")
    seen = after(shop, "0", Action("One moment.", (LOOK,)))
    assert seen.messages == ({"role": "tool", "content": "yusuf_rossi_9620"},)
    text_after = after(shop, "0", Action("", (LOOK,)), Action("What is your email address?"))
    assert text_after.messages[0]["content"].startswith("I do not remember my email address.")
    agreed = after(shop, "0", Action("Your email?"), Action("Shall I?"))
    assert agreed.messages == ({"role": "user", "content": "Yes, please go ahead."},)
    over = after(shop, "0", Action("It is done."))
    assert (over.done, shop.succeeded()) == (True, False)


def test_an_episode_through_the_journal_succeeds_and_says_which_record_is_amiss(shop: Tau2, tmp_path: Path) -> None:
    expected = shop.scenarios["0"].expected

    def agent(calls: Sequence[ToolCall]) -> Scripted:
        def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
            turn = sum(m["role"] == "assistant" for m in messages)
            if turn == len(calls):
                return "All is exchanged."
            call = ToolCall(calls[turn].name, calls[turn].arguments)
            return f'<tool_call>{{"name": "{call.name}", "arguments": {json.dumps(call.arguments)}}}</tool_call>'

        return Scripted(f"agent{len(calls)}", respond)

    async def inside(calls: Sequence[ToolCall]) -> bool | None:
        with Journal(tmp_path / "journal.sqlite") as journal:
            episode = await play(shop, agent(calls), "0", 1, Sampling(), journal)
        assert episode.ended == "done"
        return episode.success

    assert asyncio.run(inside(expected)) is True
    assert asyncio.run(inside(expected[:-1])) is False
    assert shop.amiss() == ["order #W2378156 is not as it should be"]


def test_what_was_to_be_told_counts(shop: Tau2) -> None:
    scenario = shop.scenarios["16"]
    assert scenario.to_tell == ("8276.23",)
    assert faults_of(shop, scenario, scenario.expected, final=False) == ["'8276.23' was not told"]


@pytest.mark.parametrize(
    ("words", "is_told"),
    [
        ("It is 8276.23.", True),
        ("<think>How much?</think>It is 8276.23.", True),
        ("<think>It is 8276.23, but I keep that to myself.</think>I cannot tell you.", False),
        ("It is 8276.23, but I keep that to myself.</think>\nI cannot tell you.", False),
        ("<think>It is 8276.23, but I keep", False),
        ("[THINK]It is 8276.23.[/THINK]I cannot tell you.", False),
    ],
)
def test_what_an_agent_only_thinks_is_not_told(shop: Tau2, words: str, is_told: bool) -> None:
    after(shop, "16", Action(words))
    assert ("'8276.23' was not told" not in shop.amiss()) is is_told
    assert "keep" not in shop.state()["talk"][1]["content"]


@pytest.mark.parametrize(
    ("wanted", "stated", "right"),
    [
        ("1628", "That is $1,628 in all.", True),
        ("481.5", "481.50", True),
        ("10", "There are 110, or 10.5.", False),
        ("10", "There are 10.", True),
        ("10", "ten", False),
        ("Maple Drive", "943  MAPLE\ndrive", True),
    ],
)
def test_a_number_is_one_however_it_is_written(wanted: str, stated: str, right: bool) -> None:
    assert (untold([wanted], stated) == []) is right


def test_an_episode_ends_after_a_transfer_and_the_words_that_follow(shop: Tau2) -> None:
    transfer = Action("", (ToolCall("transfer_to_human_agents", {"summary": "?"}),))
    assert not after(shop, "0", transfer).done
    assert after(shop, "0", transfer, Action("YOU ARE BEING TRANSFERRED")).done


def test_a_shared_database_is_touched_by_no_episode(shop: Tau2) -> None:
    calls = shop.scenarios["0"].expected
    changed = after(shop, "0", *(Action("", (call,)) for call in calls)).messages[0]["content"]
    assert "exchange requested" in changed
    assert shop.state()["changes"]["orders"].keys() == {"#W2378156"}
    assert '"status":"delivered"' in answer(shop, "0", ("get_order_details", {"order_id": "#W2378156"}))
    assert shop.state()["changes"] == {}


@pytest.mark.parametrize(
    ("name", "changed", "wrong"),
    [
        ("exchange_delivered_order_items", {"order_id": "#W0000000"}, "there is no order '#W0000000'"),
        ("exchange_delivered_order_items", {"payment_method_id": "paypal_1"}, "has no payment method"),
        ("exchange_delivered_order_items", {"item_ids": ["1151293680"]}, "1 items cannot become 2"),
        ("exchange_delivered_order_items", {"item_ids": ["1151293680", "1151293680"]}, "does not hold 1151293680"),
        (
            "exchange_delivered_order_items",
            {"new_item_ids": ["7747408585", "7706410293"]},
            "is another product than",
        ),
        ("modify_pending_order_items", {}, "is delivered, not pending"),
    ],
)
def test_the_shop_says_what_is_wrong(shop: Tau2, name: str, changed: dict[str, Any], wrong: str) -> None:
    given = shop.scenarios["0"].expected[-1].arguments
    assert wrong in answer(shop, "0", (name, {**given, **changed}))
    assert shop.state()["changes"] == {}


def test_refunds_to_a_gift_card_come_at_once(shop: Tau2) -> None:
    orders = shop.records().all("orders")
    id, order = next(
        (id, order)
        for id, order in orders
        if order["status"] == "pending" and order["payment_history"][0]["payment_method_id"].startswith("gift_card")
    )
    paid = order["payment_history"][0]
    before = shop.records().read("users", order["user_id"])["payment_methods"][paid["payment_method_id"]]["balance"]
    answer(shop, "0", ("cancel_pending_order", {"order_id": id, "reason": "no longer needed"}))
    changes = shop.state()["changes"]
    card = changes["users"][order["user_id"]]["payment_methods"][paid["payment_method_id"]]
    assert card["balance"] == round(before + paid["amount"], 2)
    assert changes["orders"][id]["payment_history"][1]["transaction_type"] == "refund"
    assert "is cancelled, not pending" in answer(
        shop,
        "0",
        ("cancel_pending_order", {"order_id": id, "reason": "no longer needed"}),
        ("modify_pending_order_payment", {"order_id": id, "payment_method_id": "x"}),
    )


BOOKING = {
    "user_id": "mia_li_3668",
    "origin": "JFK",
    "destination": "SEA",
    "flight_type": "one_way",
    "cabin": "economy",
    "flights": [
        {"flight_number": "HAT136", "date": "2024-05-20"},
        {"flight_number": "HAT039", "date": "2024-05-20"},
    ],
    "passengers": [{"first_name": "Mia", "last_name": "Li", "dob": "1990-04-05"}],
    "payment_methods": [
        {"payment_id": "certificate_7504069", "amount": 250},
        {"payment_id": "credit_card_4421486", "amount": 5},
    ],
    "total_baggages": 3,
    "nonfree_baggages": 0,
    "insurance": "no",
}


def test_a_booking_takes_seats_and_uses_a_certificate_up(airline: Tau2) -> None:
    leg = BOOKING["flights"][0]
    before = airline.records().read("flights", leg["flight_number"])["dates"][leg["date"]]["available_seats"]["economy"]
    assert '"created_at":"2024-05-15T15:00:00"' in answer(airline, "20", ("book_reservation", BOOKING))
    changes = airline.state()["changes"]
    assert changes["flights"]["HAT136"]["dates"][leg["date"]]["available_seats"]["economy"] == before - 1
    assert "certificate_7504069" not in changes["users"]["mia_li_3668"]["payment_methods"]
    (id,) = changes["reservations"]
    assert changes["users"]["mia_li_3668"]["reservations"][-1] == id
    second = answer(airline, "20", ("book_reservation", BOOKING), ("cancel_reservation", {"reservation_id": id}))
    assert '"amount":-250' in second
    assert "flights" not in airline.state()["changes"]  # the seats are free again


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"insurance": "yes"}, "the price is 285, and 255.0 would be paid"),
        ({"payment_methods": [{"payment_id": "certificate_4856383", "amount": 255}]}, "holds 100, less than 255"),
        ({"nonfree_baggages": 4}, "4 of 3 bags"),
        ({"flights": [{"flight_number": "HAT136", "date": "2024-05-01"}]}, "cannot be booked"),
        ({"flights": [{"flight_number": "HAT136", "date": "2023-05-01"}]}, "does not fly on"),
        ({"flights": []}, "no flight"),
        ({"cabin": "first"}, "cabin: Input should be"),
    ],
)
def test_the_airline_says_what_is_wrong(airline: Tau2, changed: dict[str, Any], wrong: str) -> None:
    assert wrong in answer(airline, "20", ("book_reservation", {**BOOKING, **changed}))
    assert airline.state()["changes"] == {}


def test_flights_with_one_stop_connect(airline: Tau2) -> None:
    asked = {"origin": "JFK", "destination": "SEA", "date": "2024-05-20"}
    pairs = json.loads(answer(airline, "20", ("search_onestop_flight", asked)))
    assert ["HAT136", "HAT039"] in [[leg["flight_number"] for leg in pair] for pair in pairs]
    for first, second in pairs:
        assert first["destination"] == second["origin"]
        overnight = "+" in first["scheduled_arrival_time_est"]
        assert second["date"] == ("2024-05-21" if overnight else "2024-05-20")
        assert second["scheduled_departure_time_est"] >= first["scheduled_arrival_time_est"].partition("+")[0]


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("2 * (1.5 + 3)", "9.0"),
        ("-10 / 4", "-2.5"),
        ("1 / 0", "Error: division by zero"),
        ("2 ** 99999", "Error: only numbers"),
        ("__import__('os')", "Error: only numbers"),
        ("(" * 400, "Error: "),
        ("1" * 501, "Error: an expression has at most"),
    ],
)
def test_arithmetic_and_nothing_else_is_worked_out(shop: Tau2, expression: str, result: str) -> None:
    assert answer(shop, "0", ("calculate", {"expression": expression})).startswith(result)


def test_a_model_may_play_the_customer_and_hang_up(tau2: Path, tmp_path: Path) -> None:
    def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        assert "zip code 19122" in messages[0]["content"]
        assert messages[1]["role"] == "user"
        assert messages[-1]["role"] == "user"
        if messages[-1]["content"] == "Goodbye.":
            return "Thanks! <hangs up> and more"
        return f"I say {len(messages)}."

    async def inside(agent: Scripted) -> list[Observation]:
        with Journal(tmp_path / "journal.sqlite") as journal:
            desk = Tau2(RETAIL, tau2, PlayedUser(agent, journal))
            seen = [await desk.reset("0", 7), await desk.step(Action("Hello?")), await desk.step(Action("Goodbye."))]
            assert {call.stage for call in journal} == {"user"}
            return seen

    customer = Scripted("customer", respond)
    first, second, last = asyncio.run(inside(customer))
    assert first.messages[1]["content"] == "I say 2."
    assert second.messages[0]["content"] == "I say 4."
    assert (last.messages[0]["content"], last.done) == ("Thanks!", True)
    assert asyncio.run(inside(customer)) == [first, second, last]
    assert customer.calls == 3  # the second time from the journal


@pytest.mark.parametrize(
    "thought", ["<think>I am upset.</think>\n\n", "I am upset.\n</think>\n", "[THINK]I am upset.[/THINK]"]
)
def test_an_agent_does_not_hear_what_a_played_customer_thinks(tau2: Path, tmp_path: Path, thought: str) -> None:
    async def inside() -> Observation:
        with Journal(tmp_path / "journal.sqlite") as journal:
            customer = Scripted("customer", lambda *_: f"{thought}Hi, I want to cancel.")
            return await Tau2(RETAIL, tau2, PlayedUser(customer, journal)).reset("0", 7)

    assert asyncio.run(inside()).messages[1]["content"] == "Hi, I want to cancel."


def test_a_customer_who_thinks_and_says_nothing_has_not_hung_up(tau2: Path, tmp_path: Path) -> None:
    async def inside() -> tuple[Observation, bool | None]:
        with Journal(tmp_path / "journal.sqlite") as journal:
            customer = Scripted("customer", lambda *_: "<think>Shall I say <hangs up>")
            desk = Tau2(RETAIL, tau2, PlayedUser(customer, journal))
            return await desk.reset("0", 7), desk.succeeded()

    seen, success = asyncio.run(inside())
    assert (seen.done, success) == (True, None)


def test_where_the_customers_model_fails_success_cannot_be_told(tau2: Path, tmp_path: Path) -> None:
    def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        raise AgentError("refused")

    async def inside() -> tuple[Observation, bool | None]:
        with Journal(tmp_path / "journal.sqlite") as journal:
            desk = Tau2(RETAIL, tau2, PlayedUser(Scripted("customer", respond), journal))
            return await desk.reset("0", 7), desk.succeeded()

    seen, success = asyncio.run(inside())
    assert (seen.done, success) == (True, None)


def test_the_scripted_customer_speaks_of_themself(shop: Tau2) -> None:
    assert in_first_person("you are Ada. your order was sent to you; you've a card.") == (
        "I am Ada. My order was sent to me; I've a card."
    )
    user, scenario = ScriptedUser(), shop.scenarios["0"]
    assert asyncio.run(user.says(scenario, [], 0)) == asyncio.run(user.says(scenario, [], 1))


def test_an_unknown_task_and_a_missing_folder_are_said(shop: Tau2, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no task '9999'"):
        asyncio.run(shop.reset("9999", 0))
    with pytest.raises(DataError, match="cannot read the file"):
        Tau2(RETAIL, tmp_path)


def test_the_command_line_checks_named_domains_and_says_what_is_missing(tau2: Path, tmp_path: Path) -> None:
    done = viva("check-tasks", "--data", tau2.parent, "--task", "tau2_retail")
    assert " ".join(done.stdout.split()) == "tau2_retail 94 rows 94 gold accepted 94 wrong rejected (tasks.json)"
    assert "odd: task 105: an expected call fails, and changes nothing: exchange_delivered_order_items" in done.stderr
    assert done.returncode == 0
    (tmp_path / "gsm8k").mkdir()
    lacking = viva("check-tasks", "--data", tmp_path, "--task", "tau2_retail")
    assert lacking.returncode == 2
    assert "cannot read the file" in lacking.stderr
