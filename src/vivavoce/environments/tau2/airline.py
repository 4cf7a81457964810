"""The airline of τ²-bench: its tools over users, flights and reservations.

The names of tools and arguments are those of the official tasks. A tool enforces the limits of the data itself (that
there are such flights, seats and money); the policy says that its rules are the agent's to keep. The official database
of τ²-bench is not published in a plain file beside the tasks. The tables are read from it if it is there (``db.json``),
otherwise from the three files of τ-bench that it descends from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from vivavoce.environments.functions import Refused
from vivavoce.environments.tau2.domain import Domain, read_json
from vivavoce.environments.tau2.records import Records, Tables
from vivavoce.environments.tau2.shared_tools import calculate, transfer_to_human_agents
from vivavoce.records import digest

Cabin = Literal["basic_economy", "economy", "business"]
_NOW = "2024-05-15T15:00:00"  # of the policy
_BAG, _INSURANCE = 50, 30
_CITIES = {
    "ATL": "Atlanta",
    "BOS": "Boston",
    "CLT": "Charlotte",
    "DEN": "Denver",
    "DFW": "Dallas/Fort Worth",
    "DTW": "Detroit",
    "EWR": "Newark",
    "IAH": "Houston",
    "JFK": "New York",
    "LAS": "Las Vegas",
    "LAX": "Los Angeles",
    "LGA": "New York",
    "MCO": "Orlando",
    "MIA": "Miami",
    "MSP": "Minneapolis",
    "ORD": "Chicago",
    "PHL": "Philadelphia",
    "PHX": "Phoenix",
    "SEA": "Seattle",
    "SFO": "San Francisco",
}


class Leg(TypedDict):
    """A flight on a day."""

    flight_number: str
    date: str


class Passenger(TypedDict):
    """A passenger; ``dob`` is the date of birth."""

    first_name: str
    last_name: str
    dob: str


class Payment(TypedDict):
    """Part of a price, in dollars."""

    payment_id: str
    amount: float


def get_user_details(airline: Records, user_id: str) -> Mapping[str, Any]:
    """Look up a user: name, address, membership, payment methods, saved passengers and ids of reservations.

    Args:
        user_id: Such as 'ada_miller_1234'.
    """
    return airline.read("users", user_id)


def get_reservation_details(airline: Records, reservation_id: str) -> Mapping[str, Any]:
    """Look up a reservation: flights, cabin, passengers, payments, bags, insurance.

    Args:
        reservation_id: Such as 'ABC123'.
    """
    return airline.read("reservations", reservation_id)


def get_flight_status(airline: Records, flight_number: str, date: str) -> str:
    """Tell the status of a flight on a day.

    Args:
        flight_number: Such as 'HAT001'.
        date: As YYYY-MM-DD.
    """
    return _day(airline, flight_number, date)["status"]


def list_all_airports(airline: Records) -> dict[str, str]:
    """Name every airport that is flown to, and its city."""
    codes = {str(flight[end]) for _, flight in airline.all("flights") for end in ("origin", "destination")}
    return {code: _CITIES.get(code, code) for code in sorted(codes)}


def search_direct_flight(airline: Records, origin: str, destination: str, date: str) -> list[dict[str, Any]]:
    """Find the flights from one airport to another on a day that can be booked, with seats and prices.

    Args:
        origin: Code of the airport, such as 'JFK'.
        destination: Code of the airport, such as 'SEA'.
        date: As YYYY-MM-DD.
    """
    return list(_bookable(airline, date, origin=origin, destination=destination))


def search_onestop_flight(airline: Records, origin: str, destination: str, date: str) -> list[list[dict[str, Any]]]:
    """Find pairs of flights that can be booked and lead from one airport to another by a third.

    Args:
        origin: Code of the airport, such as 'JFK'.
        destination: Code of the airport, such as 'SEA'.
        date: Of the first flight, as YYYY-MM-DD.
    """
    connections = list[list[dict[str, Any]]]()
    for first in _bookable(airline, date, origin=origin):
        arrival, _, later = first["scheduled_arrival_time_est"].partition("+")
        day = _later(date, int(later or 0))
        connections += [
            [first, second]
            for second in _bookable(airline, day, origin=first["destination"], destination=destination)
            if second["scheduled_departure_time_est"] >= arrival
        ]
    return connections


def book_reservation(
    airline: Records,
    user_id: str,
    origin: str,
    destination: str,
    flight_type: Literal["one_way", "round_trip"],
    cabin: Cabin,
    flights: list[Leg],
    passengers: list[Passenger],
    payment_methods: list[Payment],
    total_baggages: int,
    nonfree_baggages: int,
    insurance: Literal["yes", "no"],
) -> Mapping[str, Any]:
    """Book flights for one or more passengers. The user has to confirm everything first.

    Args:
        user_id: Who books.
        origin: Code of the airport where the trip begins.
        destination: Code of the airport that the trip is to.
        flight_type: Whether it leads back again.
        cabin: Of all flights.
        flights: All of them in order, those of the way back too.
        passengers: Everybody who flies.
        payment_methods: What is paid by what; the amounts make up the price.
        total_baggages: Checked bags of all passengers.
        nonfree_baggages: Those of them that are paid for.
        insurance: Whether the passengers are insured.
    """
    _bags(total_baggages, nonfree_baggages)
    booked = _price_legs(airline, flights, cabin, len(passengers))
    insured = _INSURANCE if insurance == "yes" else 0
    price = (sum(leg["price"] for leg in booked) + insured) * len(passengers) + _BAG * nonfree_baggages
    paid = sum(payment["amount"] for payment in payment_methods)
    if paid != price:
        raise Refused(f"the price is {price}, and {paid} would be paid")
    for payment in payment_methods:
        _can_pay(airline, user_id, payment["payment_id"], payment["amount"])
    content = [user_id, cabin, booked, passengers, len(airline.read("users", user_id)["reservations"])]
    id = f"N{digest(content)[:5].upper()}"
    reservation = {
        "reservation_id": id,
        "user_id": user_id,
        "origin": origin,
        "destination": destination,
        "flight_type": flight_type,
        "cabin": cabin,
        "flights": booked,
        "passengers": [dict(passenger) for passenger in passengers],
        "payment_history": [dict(payment) for payment in payment_methods],
        "created_at": _NOW,
        "total_baggages": total_baggages,
        "nonfree_baggages": nonfree_baggages,
        "insurance": insurance,
    }
    airline.add("reservations", id, reservation)
    airline.change("users", user_id)["reservations"].append(id)
    for payment in payment_methods:
        _pay(airline, user_id, payment["payment_id"], payment["amount"])
    _take_seats(airline, booked, cabin, len(passengers))
    return reservation


def cancel_reservation(airline: Records, reservation_id: str) -> Mapping[str, Any]:
    """Cancel a whole reservation and refund what was paid. The user has to confirm it first.

    Args:
        reservation_id: Such as 'ABC123'.
    """
    _standing(airline, reservation_id)
    reservation = airline.change("reservations", reservation_id)
    # the money takes days: no balance changes now
    paid = reservation["payment_history"]
    reservation["payment_history"] = [*paid, *({**payment, "amount": -payment["amount"]} for payment in paid)]
    reservation["status"] = "cancelled"
    _take_seats(airline, reservation["flights"], reservation["cabin"], -len(reservation["passengers"]))
    return reservation


def update_reservation_flights(
    airline: Records, reservation_id: str, cabin: Cabin, flights: list[Leg], payment_id: str
) -> Mapping[str, Any]:
    """Change the flights of a reservation, or its cabin, or both. The user has to confirm everything first.

    Args:
        reservation_id: Such as 'ABC123'.
        cabin: Of all flights; the present one where it stays.
        flights: All flights in order, those that stay too.
        payment_id: Gift card or credit card that pays the difference in price, or receives it.
    """
    present = _standing(airline, reservation_id)
    people, before = len(present["passengers"]), present["flights"]
    kept = {(leg["flight_number"], leg["date"]): leg for leg in before} if cabin == present["cabin"] else {}
    after = _price_legs(airline, flights, cabin, people, kept)
    difference = (sum(leg["price"] for leg in after) - sum(leg["price"] for leg in before)) * people
    _card(airline, present["user_id"], payment_id)
    _can_pay(airline, present["user_id"], payment_id, difference)
    reservation = airline.change("reservations", reservation_id)
    _take_seats(airline, before, reservation["cabin"], -people)
    _take_seats(airline, after, cabin, people)
    reservation |= {"flights": after, "cabin": cabin}
    _charge(airline, reservation, payment_id, difference)
    return reservation


def update_reservation_baggages(
    airline: Records, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str
) -> Mapping[str, Any]:
    """Change how many checked bags a reservation has. The user has to confirm it first.

    Args:
        reservation_id: Such as 'ABC123'.
        total_baggages: Checked bags of all passengers, those of before too.
        nonfree_baggages: Those of them that are paid for, those of before too.
        payment_id: Gift card or credit card that pays for further ones.
    """
    present = _standing(airline, reservation_id)
    _bags(total_baggages, nonfree_baggages)
    price = _BAG * max(0, nonfree_baggages - present["nonfree_baggages"])
    _card(airline, present["user_id"], payment_id)
    _can_pay(airline, present["user_id"], payment_id, price)
    reservation = airline.change("reservations", reservation_id)
    reservation |= {"total_baggages": total_baggages, "nonfree_baggages": nonfree_baggages}
    _charge(airline, reservation, payment_id, price)
    return reservation


def update_reservation_passengers(
    airline: Records, reservation_id: str, passengers: list[Passenger]
) -> Mapping[str, Any]:
    """Change who flies, but not how many. The user has to confirm it first.

    Args:
        reservation_id: Such as 'ABC123'.
        passengers: Everybody who flies, those who stay too.
    """
    present = _standing(airline, reservation_id)
    if len(passengers) != len(present["passengers"]):
        raise Refused(f"the reservation is for {len(present['passengers'])}, not for {len(passengers)}")
    reservation = airline.change("reservations", reservation_id)
    reservation["passengers"] = [dict(passenger) for passenger in passengers]
    return reservation


def send_certificate(airline: Records, user_id: str, amount: int) -> str:
    """Give a user a travel certificate. The user has to confirm it first.

    Args:
        user_id: Such as 'ada_miller_1234'.
        amount: In dollars.
    """
    if amount <= 0:
        raise Refused(f"a certificate is worth more than {amount}")
    methods = airline.change("users", user_id)["payment_methods"]
    id = f"certificate_{int(digest([user_id, amount, len(methods)])[:8], 16) % 10**7:07}"
    methods[id] = {"source": "certificate", "amount": amount, "id": id}
    return f"{user_id} has the certificate {id} of {amount} dollars"


def _later(date: str, days: int) -> str:
    from datetime import date as Date
    from datetime import timedelta

    try:
        return str(Date.fromisoformat(date) + timedelta(days))
    except (ValueError, OverflowError):
        raise Refused(f"{date!r} is no date") from None


def _bookable(airline: Records, date: str, **ends: str) -> Iterator[dict[str, Any]]:
    for _, flight in airline.all("flights"):
        day = flight["dates"].get(date, {})
        if day.get("status") == "available" and all(flight[end] == airport for end, airport in ends.items()):
            fixed = {key: value for key, value in flight.items() if key != "dates"}
            yield {**fixed, "date": date, "available_seats": day["available_seats"], "prices": day["prices"]}


def _day(airline: Records, flight_number: str, date: str) -> Mapping[str, Any]:
    days = airline.read("flights", flight_number)["dates"]
    if date not in days:
        raise Refused(f"{flight_number} does not fly on {date!r}")
    return days[date]


def _price_legs(
    airline: Records,
    flights: Sequence[Leg],
    cabin: Cabin,
    people: int,
    kept: Mapping[tuple[str, str], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Legs as a reservation holds them, with a passenger's price; those that are ``kept`` keep their price.

    Raises Refused if one cannot be booked.
    """
    if not flights or not people:
        raise Refused("no flight or no passenger is named")
    legs = list[dict[str, Any]]()
    for leg in flights:
        number, date = leg["flight_number"], leg["date"]
        if (old := (kept or {}).get((number, date))) is not None:
            legs.append(dict(old))
            continue
        flight, day = airline.read("flights", number), _day(airline, number, date)
        if day["status"] != "available":
            raise Refused(f"{number} on {date} is {day['status']} and cannot be booked")
        if day["available_seats"][cabin] < people:
            raise Refused(f"{number} on {date} has {day['available_seats'][cabin]} seats left in {cabin}")
        ends = {"origin": flight["origin"], "destination": flight["destination"]}
        legs.append({**ends, "flight_number": number, "date": date, "price": day["prices"][cabin]})
    return legs


def _take_seats(airline: Records, legs: Iterable[Mapping[str, Any]], cabin: str, people: int) -> None:
    """Seats that are taken, or given back, of the flights that can still be booked."""
    for leg in legs:
        if airline.read("flights", leg["flight_number"])["dates"][leg["date"]]["status"] == "available":
            day = airline.change("flights", leg["flight_number"])["dates"][leg["date"]]
            day["available_seats"][cabin] -= people


def _standing(airline: Records, reservation_id: str) -> Mapping[str, Any]:
    reservation = airline.read("reservations", reservation_id)
    if reservation.get("status") == "cancelled":
        raise Refused(f"reservation {reservation_id} is cancelled")
    return reservation


def _bags(total: int, nonfree: int) -> None:
    if not 0 <= nonfree <= total:
        raise Refused(f"{nonfree} of {total} bags cannot be paid for")


def _method(airline: Records, user_id: str, payment_id: str) -> Mapping[str, Any]:
    methods = airline.read("users", user_id)["payment_methods"]
    if payment_id not in methods:
        raise Refused(f"{user_id} has no payment method {payment_id!r}")
    return methods[payment_id]


def _card(airline: Records, user_id: str, payment_id: str) -> None:
    if _method(airline, user_id, payment_id)["source"] == "certificate":
        raise Refused("a change is paid by gift card or credit card, not by certificate")


def _can_pay(airline: Records, user_id: str, payment_id: str, amount: float) -> None:
    method = _method(airline, user_id, payment_id)
    if method["source"] != "credit_card" and method["amount"] < amount:
        raise Refused(f"{payment_id} holds {method['amount']}, less than {amount}")


def _pay(airline: Records, user_id: str, payment_id: str, amount: float) -> None:
    """Take it from a gift card; a certificate is used up, whatever is left of it."""
    methods = airline.change("users", user_id)["payment_methods"]
    if methods[payment_id]["source"] == "certificate":
        del methods[payment_id]
    elif methods[payment_id]["source"] == "gift_card":
        methods[payment_id]["amount"] -= amount


def _charge(airline: Records, reservation: dict[str, Any], payment_id: str, amount: float) -> None:
    if amount:
        reservation["payment_history"].append({"payment_id": payment_id, "amount": amount})
        _pay(airline, reservation["user_id"], payment_id, amount)


def _tables(folder: Path) -> Tables:
    if any((folder / name).is_file() for name in ("db.json", "db.json.gz")):
        return read_json(folder, "db.json")
    return {table: read_json(folder, f"tau_bench_v1_{table}.json") for table in ("flights", "reservations", "users")}


AIRLINE = Domain(
    name="tau2_airline",
    folder="airline",
    tables=_tables,
    functions=(
        book_reservation,
        calculate,
        cancel_reservation,
        get_flight_status,
        get_reservation_details,
        get_user_details,
        list_all_airports,
        search_direct_flight,
        search_onestop_flight,
        send_certificate,
        transfer_to_human_agents,
        update_reservation_baggages,
        update_reservation_flights,
        update_reservation_passengers,
    ),
)

__all__ = ["AIRLINE"]
