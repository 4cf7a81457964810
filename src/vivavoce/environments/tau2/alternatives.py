"""Alternatives to expected calls that would leave another database: the mutations of the checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vivavoce.environments.tau2.records import Records
from vivavoce.records import ToolCall

OVERWRITING = frozenset({"modify_pending_order_address", "modify_user_address", "update_reservation_passengers"})
"""Tools of whose calls with equal first arguments only the last one counts."""


def unasked_call(domain: str, records: Records) -> ToolCall:
    """A call that changes the record of a user that no task speaks of."""
    user_id = next(records.all("users"))[0]
    if domain == "tau2_airline":
        return ToolCall("send_certificate", {"user_id": user_id, "amount": 1})
    address = dict.fromkeys(("address1", "address2", "city", "state", "country", "zip"), "elsewhere")
    return ToolCall("modify_user_address", {"user_id": user_id, **address})


def other_values(domain: str, records: Records, call: ToolCall, argument: str) -> Iterable[Any]:
    """Values for an argument with which the tool does something else, if it takes them. There may be none."""
    of = {"tau2_airline": _of_airline, "tau2_retail": _of_retail}[domain]
    return of(records, call.name, call.arguments, argument)


def _of_retail(records: Records, tool: str, arguments: Mapping[str, Any], argument: str) -> Iterable[Any]:
    value = arguments[argument]
    if argument == "reason":
        yield from {"no longer needed", "ordered by mistake"} - {value}
    elif argument == "payment_method_id":
        owner = records.read("users", records.read("orders", arguments["order_id"])["user_id"])
        yield from sorted(owner["payment_methods"].keys() - {value})
    elif argument == "item_ids" and tool == "return_delivered_order_items":
        every = [item["item_id"] for item in records.read("orders", arguments["order_id"])["items"]]
        yield from (items for items in (every, value[1:]) if items and len(items) != len(value))
    elif argument == "new_item_ids":
        variants = next(p["variants"] for _, p in records.all("products") if value[0] in p["variants"])
        yield from ([id, *value[1:]] for id, one in variants.items() if one["available"] and id != value[0])
    elif argument in ("address1", "address2", "city", "state", "country", "zip"):
        yield value + "0"
    elif argument == "user_id":
        yield from (id for id, _ in records.all("users") if id != value)
    elif argument == "order_id":
        order = records.read("orders", value)
        yield from (id for id in records.read("users", order["user_id"])["orders"] if id != value)


def _of_airline(records: Records, tool: str, arguments: Mapping[str, Any], argument: str) -> Iterable[Any]:
    value = arguments[argument]
    owner = arguments.get("user_id")
    if owner is None:
        owner = records.read("reservations", arguments["reservation_id"])["user_id"]
    if argument in ("total_baggages", "nonfree_baggages"):
        yield from (value + 1, value - 1)
    elif argument == "cabin":
        yield from (cabin for cabin in ("business", "economy", "basic_economy") if cabin != value)
    elif argument == "insurance":
        yield {"yes": "no", "no": "yes"}[value]
    elif argument == "flight_type":
        yield {"one_way": "round_trip", "round_trip": "one_way"}[value]
    elif argument in ("origin", "destination"):
        yield from (flight["origin"] for _, flight in records.all("flights") if flight["origin"] != value)
    elif argument == "passengers":
        yield [{**value[0], "last_name": value[0]["last_name"] + "s"}, *value[1:]]
    elif argument == "payment_id":
        yield from sorted(records.read("users", owner)["payment_methods"].keys() - {value})
    elif argument == "payment_methods":
        for id in sorted(records.read("users", owner)["payment_methods"].keys() - {p["payment_id"] for p in value}):
            yield [{**value[0], "payment_id": id}, *value[1:]]
    elif argument == "flights":
        days = records.read("flights", value[-1]["flight_number"])["dates"]
        yield from ([*value[:-1], {**value[-1], "date": date}] for date in days if date != value[-1]["date"])
    elif argument == "reservation_id":
        yield from (id for id in records.read("users", owner)["reservations"] if id != value)
    elif argument == "user_id":
        yield from (id for id, _ in records.all("users") if id != value)
    elif argument == "amount":
        yield value + 1


__all__ = ["OVERWRITING", "other_values", "unasked_call"]
