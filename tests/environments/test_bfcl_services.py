from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vivavoce.environments.bfcl.conversations import CATEGORIES, read_conversations
from vivavoce.environments.bfcl.documents import read_documents
from vivavoce.environments.bfcl.file_system import FileSystem
from vivavoce.environments.bfcl.service import Service, call_service, functions_of, states_of
from vivavoce.environments.bfcl.services import SERVICES
from vivavoce.environments.bfcl.trading import Trading
from vivavoce.environments.bfcl.travel import Travel
from vivavoce.environments.bfcl.vehicle import Vehicle
from vivavoce.records import ToolCall

ROOT = {
    "home": {
        "type": "directory",
        "contents": {
            "b.txt": {"type": "file", "content": "pear\napple\n\nfig é"},
            ".secret": {"type": "file", "content": ""},
            "inner": {"type": "directory", "contents": {"b.txt": {"type": "file", "content": "apple\npear"}}},
        },
    }
}
Said = tuple[str, dict[str, Any], Any]


def results(service: Service, *calls: tuple[str, dict[str, Any]]) -> Any:
    """What the last call returns."""
    return [call_service([service], ToolCall(*call)) for call in calls][-1]


def files() -> FileSystem:
    return FileSystem({"root": json.loads(json.dumps(ROOT))})


@pytest.mark.parametrize("name", SERVICES)
def test_the_functions_of_a_service_and_their_arguments_are_those_of_the_official_document(
    name: str, bfcl: Path
) -> None:
    service = SERVICES[name]
    documents = read_documents(bfcl, service.DOCUMENT)
    ours = {tool.name: tool.parameters for tool in functions_of(service).tools}
    assert ours.keys() == documents.keys()
    for function, tool in documents.items():
        assert list(ours[function]["properties"]) == list(tool.parameters["properties"]), function
        assert set(ours[function].get("required", ())) == set(tool.parameters["required"]), function


def test_what_the_expected_calls_return_has_the_fields_that_the_documents_name(bfcl: Path) -> None:
    fields: dict[str, set[str]] = {}
    for service in SERVICES.values():
        for line in (bfcl / "multi_turn_func_doc" / service.DOCUMENT).read_text("utf-8").splitlines():
            row = json.loads(line)
            fields[row["name"]] = set(row["response"]["properties"])
    seen = set[str]()
    for category in CATEGORIES:
        for talk in read_conversations(bfcl, category).values():
            services = talk.fresh_services()
            for call in (call for turn in talk.turns for call in turn.expected):
                returned = call_service(services, call)
                assert "error" not in returned, (talk.id, call, returned)
                if call.name == "get_ticket":  # one of the configuration has what it has
                    continue
                more = {"intermediaryCities"} | ({"created_by"} if call.name == "create_ticket" else set())
                assert returned.keys() | more == fields[call.name] | more, call
                seen.add(call.name)
    assert len(seen) > 40


FILES: list[Said] = [
    ("pwd", {}, {"current_working_directory": "/home"}),
    ("cd", {"folder": "inner"}, {"current_working_directory": "/home/inner"}),
    ("cd", {"folder": ".."}, {"error": "there is nothing above the root"}),
    ("cd", {"folder": "b.txt"}, {"error": "there is no directory 'b.txt' here"}),
    ("ls", {}, {"current_directory_content": ["b.txt", "inner"]}),
    ("ls", {"a": True}, {"current_directory_content": ["b.txt", ".secret", "inner"]}),
    ("find", {"name": "b."}, {"matches": ["b.txt", "inner/b.txt"]}),
    ("find", {"path": "./inner"}, {"matches": ["b.txt"]}),
    ("cat", {"file_name": "inner"}, {"error": "'inner' is a directory"}),
    ("cat", {"file_name": "inner/b.txt"}, {"error": "'inner/b.txt' is no name of something here; paths"}),
    ("tail", {"file_name": "b.txt", "lines": 2}, {"last_lines": "\nfig é"}),
    ("tail", {"file_name": "b.txt", "lines": 0}, {"last_lines": "pear\napple\n\nfig é"}),
    ("grep", {"file_name": "b.txt", "pattern": "p"}, {"matching_lines": ["pear", "apple"]}),
    ("wc", {"file_name": "b.txt"}, {"count": 4, "type": "lines"}),
    ("wc", {"file_name": "b.txt", "mode": "w"}, {"count": 4, "type": "words"}),
    ("wc", {"file_name": "b.txt", "mode": "c"}, {"count": 17, "type": "characters"}),
    ("wc", {"file_name": "b.txt", "mode": "x"}, {"error": "mode: Input should be 'l', 'w' or 'c'"}),
    ("du", {"human_readable": True}, {"disk_usage": "28 bytes"}),  # é has two
    ("sort", {"file_name": "b.txt"}, {"sorted_content": "\napple\nfig é\npear"}),
    ("echo", {"content": "hi"}, {"terminal_output": "hi"}),
    ("echo", {"content": "hi", "file_name": "new.txt"}, {"error": "there is no file 'new.txt'"}),
    ("touch", {"file_name": "b.txt"}, {"error": "there is a 'b.txt' already"}),
    ("touch", {"file_name": "a/b"}, {"error": "'a/b' is no name of something here; paths are not"}),
    ("mkdir", {"dir_name": "new"}, {}),
    ("rmdir", {"dir_name": "inner"}, {"error": "'inner' is not empty"}),
    ("mv", {"source": "b.txt", "destination": "inner"}, {"error": "there is a 'b.txt' already"}),
    ("mv", {"source": "inner", "destination": "inner"}, {"error": "'inner' cannot be put into itself"}),
    ("cp", {"source": "none", "destination": "inner"}, {"error": "there is no 'none' here"}),
    ("cp", {"source": "b.txt", "destination": "../x"}, {"error": "'../x' is no name of something here; paths"}),
]


@pytest.mark.parametrize(("function", "arguments", "returned"), FILES)
def test_a_file_system_returns(function: str, arguments: dict[str, Any], returned: dict[str, Any]) -> None:
    reply = results(files(), (function, arguments))
    assert reply.keys() == returned.keys()
    if "error" in returned:
        assert reply["error"].startswith(returned["error"])
    else:
        assert reply == returned


def test_files_are_sorted_in_place_written_moved_copied_and_removed() -> None:
    home = files()
    results(
        home,
        ("sort", {"file_name": "b.txt"}),
        ("cp", {"source": "inner", "destination": "copy"}),
        ("mv", {"source": "b.txt", "destination": "a.txt"}),
        ("cp", {"source": "a.txt", "destination": "inner"}),
        ("cd", {"folder": "inner"}),
        ("echo", {"content": "new", "file_name": "b.txt"}),
        ("cd", {"folder": ".."}),
        ("rm", {"file_name": ".secret"}),
    )
    text = "\napple\nfig é\npear"
    assert home.root == {"a.txt": text, "inner": {"b.txt": "new", "a.txt": text}, "copy": {"b.txt": "apple\npear"}}


def test_lines_are_compared_one_by_one() -> None:
    home = files()
    results(home, ("mv", {"source": "b.txt", "destination": "c.txt"}), ("cd", {"folder": "inner"}))
    home.root["inner"]["c.txt"] = home.root["c.txt"]
    assert results(home, ("diff", {"file_name1": "b.txt", "file_name2": "c.txt"})) == {
        "diff_lines": "- apple\n+ pear\n- pear\n+ apple\n+ \n+ fig é"
    }


def test_a_car_starts_locked_with_the_pedal_to_the_floor_and_fuel() -> None:
    car = Vehicle({"fuelLevel": 0.0, "doorStatus": {"driver": "locked"}})
    start = ("startEngine", {"ignitionMode": "START"})
    lock = ("lockDoors", {"unlock": False, "door": ["passenger", "rear_left", "rear_right"]})
    assert "passenger, rear_left, rear_right" in results(car, start)["error"]
    assert results(car, lock) == {"lockStatus": "locked", "remainingUnlockedDoors": 0}
    assert "brake pedal" in results(car, ("pressBrakePedal", {"pedalPosition": 0.5}), start)["error"]
    assert results(car, ("pressBrakePedal", {"pedalPosition": 1}), start)["error"] == "the tank is empty"
    assert "the tank holds 50 gallons" in results(car, ("fillFuelTank", {"fuelAmount": 50.5}))["error"]
    assert results(car, ("fillFuelTank", {"fuelAmount": 49}), start) == {
        "engineState": "running",
        "fuelLevel": 49.0,
        "batteryVoltage": 12.6,
    }
    assert results(car, ("estimate_drive_feasibility_by_mileage", {"distance": 980})) == {"canDrive": True}
    assert results(car, ("estimate_distance", {"cityA": "83214", "cityB": "94016"})) == {"distance": 980.0}
    assert "zip codes" in results(car, ("estimate_distance", {"cityA": "Rivermist", "cityB": "94016"}))["error"]


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        ("logarithm", {"value": 36.0, "base": 6.0, "precision": 4}, 2.0),
        ("logarithm", {"value": 3287, "base": 6, "precision": 4}, 4.51947021484375),  # as an official row has it
        ("square_root", {"number": 2, "precision": 4}, 1.414),
        ("standard_deviation", {"numbers": [1, 3]}, 1.0),
        ("percentage", {"part": 1, "whole": 4}, 25.0),
        ("si_unit_conversion", {"value": 2, "unit_in": "km", "unit_out": "cm"}, 200000.0),
        ("imperial_si_conversion", {"value": 2.54, "unit_in": "cm", "unit_out": "inch"}, 1.0),
        ("imperial_si_conversion", {"value": 100, "unit_in": "celsius", "unit_out": "fahrenheit"}, 212.0),
        ("round_number", {"number": 2.567, "decimal_places": 1}, 2.6),
        ("power", {"base": -8, "exponent": 0.5}, "no real number"),
        ("power", {"base": 10, "exponent": 1000}, "out of range"),
        ("divide", {"a": 1, "b": 0}, "divided by zero"),
        ("mean", {"numbers": []}, "no numbers"),
        ("logarithm", {"value": 0, "base": 10, "precision": 3}, "no such logarithm"),
    ],
)
def test_arithmetic(function: str, arguments: dict[str, Any], result: float | str) -> None:
    reply = results(SERVICES["MathAPI"]({}), (function, arguments))
    if isinstance(result, str):
        assert result in reply["error"]
    else:
        assert math.isclose(reply["result"], result, rel_tol=1e-12)


@pytest.mark.parametrize("precision", [1, 2, 4, 5, 10, 15, 20])
def test_a_logarithm_is_as_precise_as_that_of_mpmath(precision: int) -> None:
    mpmath = pytest.importorskip("mpmath")
    ours = results(SERVICES["MathAPI"]({}), ("logarithm", {"value": 980, "base": 20, "precision": precision}))["result"]
    with mpmath.workdps(precision):
        assert ours == pytest.approx(float(mpmath.log(980.0) / mpmath.log(20.0)), rel=1e-15)


def test_posts_are_for_who_is_logged_in_and_carry_what_is_said_of_them() -> None:
    posts = SERVICES["TwitterAPI"]({"username": "ada", "password": "x", "tweet_counter": 4})
    assert "log in first" in results(posts, ("post_tweet", {"content": "Hi"}))["error"]
    assert results(posts, ("authenticate_twitter", {"username": "ada", "password": "y"})) == {
        "authentication_status": False
    }
    tweet = results(
        posts, ("authenticate_twitter", {"username": "ada", "password": "x"}), ("post_tweet", {"content": "Hi"})
    )
    assert tweet == {"id": 4, "username": "ada", "content": "Hi", "tags": [], "mentions": []}
    results(posts, ("mention", {"tweet_id": 4, "mentioned_usernames": ["@bob"]}), ("post_tweet", {"content": "Ho"}))
    assert results(posts, ("get_tweet", {"tweet_id": 4}))["mentions"] == ["@bob"]
    assert results(posts, ("get_tweet", {"tweet_id": 5}))["mentions"] == []
    assert results(posts, ("retweet", {"tweet_id": 5}), ("get_user_stats", {"username": "ada"})) == {
        "tweet_count": 2,
        "following_count": 0,
        "retweet_count": 1,
    }
    assert results(posts, ("comment", {"tweet_id": 9, "comment_content": "?"})) == {"error": "there is no tweet 9"}


def test_messages_go_to_known_users_and_the_last_one_can_be_deleted() -> None:
    messages = SERVICES["MessageAPI"]({"inbox": [{"USR002": ["a", "b"]}, {"USR003": "c"}]})
    send = ("send_message", {"receiver_id": "USR005", "message": "Hi"})
    assert "log in first" in results(messages, send)["error"]
    assert (
        "there is no user of the id 'USR005'"
        in results(messages, ("message_login", {"user_id": "USR001"}), send)["error"]
    )
    assert results(messages, ("add_contact", {"user_name": "Eve"}))["user_id"] == "USR005"
    assert results(messages, send, ("delete_message", {"receiver_id": "USR002"}), ("view_messages_sent", {})) == {
        "messages": {"USR002": ["a"], "USR003": ["c"], "USR005": ["Hi"]}
    }


def test_a_new_contact_gets_an_id_that_nobody_has() -> None:
    messages = SERVICES["MessageAPI"]({"user_map": {"Ada": "USR003"}, "user_count": 2})
    assert results(messages, ("add_contact", {"user_name": "Eve"}))["user_id"] == "USR004"


def test_tickets_are_changed_in_what_is_given_and_in_nothing_else() -> None:
    tickets = SERVICES["TicketAPI"]({"ticket_queue": [{"id": 7, "status": "Open"}]})
    assert "log in first" in results(tickets, ("create_ticket", {"title": "T"}))["error"]
    edit = ("edit_ticket", {"ticket_id": 7, "updates": {"priority": 2}})
    assert results(tickets, edit, ("get_ticket", {"ticket_id": 7})) == {"id": 7, "status": "Open", "priority": 2}
    assert "Extra inputs" in results(tickets, ("edit_ticket", {"ticket_id": 7, "updates": {"colour": "red"}}))["error"]
    closed = results(tickets, ("close_ticket", {"ticket_id": 7}), ("close_ticket", {"ticket_id": 7}))
    assert closed == {"error": "ticket 7 is closed already"}


STOCKS = {"QUAS": {"price": 10.0, "percent_change": -3.0}, "ZETA": {"price": 2.5, "percent_change": 0.1}}


def test_an_account_orders_cancels_pays_in_and_takes_out() -> None:
    account = Trading({"stocks": STOCKS, "account_info": {"balance": 100.0}, "order_counter": 5})
    order = ("place_order", {"order_type": "Buy", "symbol": "QUAS", "price": 10.0, "amount": 11})
    assert "log in first" in results(account, order)["error"]
    login = ("trading_login", {"username": "ada", "password": "x"})
    assert results(account, login, order) == {"error": "the account holds 100.0, less than 110.0"}
    assert results(account, ("fund_account", {"amount": 10.5}), order)["order_id"] == 5
    assert results(account, ("cancel_order", {"order_id": 5}), ("cancel_order", {"order_id": 5})) == {
        "error": "order 5 is cancelled"
    }
    assert results(account, ("withdraw_funds", {"amount": 0.5}))["new_balance"] == 110.0
    assert [t["type"] for t in account.transaction_history] == ["deposit", "withdrawal"]
    assert results(account, ("get_transaction_history", {"start_date": "2024-10-31"})) == {"transaction_history": []}
    assert results(account, ("notify_price_change", {"stocks": ["QUAS", "ZETA"], "threshold": 3})) == {
        "notification": "changed: QUAS"
    }
    assert results(
        account, ("filter_stocks_by_price", {"stocks": ["QUAS", "ZETA"], "min_price": 1, "max_price": 5})
    ) == {"filtered_stocks": ["ZETA"]}
    assert results(account, ("add_to_watchlist", {"stock": "F"})) == {"error": "there is no stock 'F'"}


def test_a_flight_is_paid_for_and_its_cancellation_paid_back() -> None:
    trip = Travel({"access_token": "t", "credit_card_list": {"c": {"balance": 500.0}}})
    way = {"travel_from": "RMS", "travel_to": "SFO", "travel_date": "2024-11-10", "travel_class": "economy"}
    (cost,) = results(trip, ("get_flight_cost", way))["travel_cost_list"]
    assert results(trip, ("book_flight", {"access_token": "u", "card_id": "c", **way})) == {
        "error": "the access token is not valid"
    }
    booked = results(trip, ("book_flight", {"access_token": "t", "card_id": "c", **way}))
    assert (booked["booking_id"], trip.credit_card_list["c"]["balance"]) == ("3426812", 500.0 - cost)
    insured = {"access_token": "t", "insurance_type": "full", "insurance_cost": 20, "card_id": "c"}
    assert results(trip, ("purchase_insurance", {**insured, "booking_id": "3426812"}))["insurance_status"]
    invoice = results(trip, ("retrieve_invoice", {"access_token": "t", "booking_id": "3426812"}))["invoice"]
    assert (invoice["travel_cost"], invoice["insurance_cost"]) == (cost, 20)
    assert results(trip, ("cancel_booking", {"access_token": "t", "booking_id": "3426812"})) == {"cancel_status": True}
    assert trip.credit_card_list["c"]["balance"] == 480.0
    dear = {**way, "travel_class": "first", "travel_to": "HND"}
    assert (
        "the card holds 480.0" in results(trip, ("book_flight", {"access_token": "t", "card_id": "c", **dear}))["error"]
    )
    results(trip, ("set_budget_limit", {"access_token": "t", "budget_limit": 1}))
    assert "the budget is 1.0" in results(trip, ("book_flight", {"access_token": "t", "card_id": "c", **way}))["error"]


def test_a_traveller_is_verified_and_a_currency_exchanged() -> None:
    trip = Travel({"user_first_name": "Ada", "user_last_name": "Li"})
    ada = {"first_name": "Ada", "last_name": "Li", "date_of_birth": "2006-10-30", "passport_number": "P"}
    assert results(trip, ("verify_traveler_information", ada))["verification_status"]
    young = results(trip, ("verify_traveler_information", {**ada, "date_of_birth": "2006-10-31"}))
    assert young == {"verification_status": False, "verification_failure": "a traveller is at least 18"}
    rate = {"base_currency": "EUR", "target_currency": "RMB", "value": 8}
    assert results(trip, ("compute_exchange_rate", rate)) == {"exchanged_value": 70.0}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_begins_without_a_configuration_and_its_state_is_json(name: str) -> None:
    service = SERVICES[name]({})
    assert json.loads(json.dumps(states_of([service]))).keys() == {name}
