"""Flights: prices, bookings, insurance, and the cards that pay for them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal

from vivavoce.environments.bfcl.service import Refused, Service, item_of

TODAY = date(2024, 10, 30)
SEED = 141053
"""The seed of all random draws, and upstream's too: expected calls name ids that Python's generator draws from it."""
AIRPORTS = {
    "Rivermist": "RMS",
    "Stonebrook": "SBK",
    "Maplecrest": "MPC",
    "Silverpine": "SVP",
    "Shadowridge": "SHD",
    "London": "LHR",
    "Paris": "CDG",
    "Sunset Valley": "SSV",
    "Oakendale": "OKD",
    "Willowbend": "WLB",
    "Crescent Hollow": "CRH",
    "Autumnville": "ATV",
    "Pinehaven": "PHV",
    "Greenfield": "GFD",
    "San Francisco": "SFO",
    "Los Angeles": "LAX",
    "New York": "JFK",
    "Chicago": "ORD",
    "Boston": "BOS",
    "Beijing": "PEK",
    "Hong Kong": "HKG",
    "Rome": "CIA",
    "Tokyo": "HND",
}
PER_DOLLAR = {
    "USD": 1.0,
    "RMB": 7.0,
    "EUR": 0.8,
    "JPY": 110.0,
    "GBP": 0.7,
    "CAD": 1.3,
    "AUD": 1.4,
    "INR": 70.0,
    "RUB": 60.0,
    "BRL": 3.8,
    "MXN": 20.0,
}
Currency = Literal["USD", "RMB", "EUR", "JPY", "GBP", "CAD", "AUD", "INR", "RUB", "BRL", "MXN"]
Class = Literal["economy", "business", "first"]
_TIMES = {"economy": 1, "business": 2, "first": 4}


class Travel(Service):
    """One traveller. Most functions take the token that logging in returns, or that the configuration has.

    Prices are ours, and low, because upstream's documents do not say which ones it has.
    """

    NAME = "TravelAPI"
    DOCUMENT = "travel_booking.json"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.credit_card_list: dict[str, dict[str, Any]] = config.get("credit_card_list", {})
        self.booking_record: dict[str, dict[str, Any]] = config.get("booking_record", {})
        self.access_token: str | None = config.get("access_token")
        self.token_type: str | None = config.get("token_type")
        self.token_expires_in: int | None = config.get("token_expires_in")
        self.token_scope: str | None = config.get("token_scope")
        self.user_first_name: str | None = config.get("user_first_name")
        self.user_last_name: str | None = config.get("user_last_name")
        self.budget_limit: float | None = config.get("budget_limit")
        self._drawn: list[tuple[int, int]] = []

    def authenticate_travel(
        self,
        client_id: str,
        client_secret: str,
        refresh_token: str,
        grant_type: Literal["read_write", "read", "write"],
        user_first_name: str,
        user_last_name: str,
    ) -> dict[str, Any]:
        """Log in; any secret will do."""
        self.access_token = self._number(100000, 999999)
        self.token_type, self.token_expires_in, self.token_scope = "Bearer", 2, grant_type
        self.user_first_name, self.user_last_name = user_first_name, user_last_name
        return {
            "expires_in": self.token_expires_in,
            "access_token": self.access_token,
            "token_type": self.token_type,
            "scope": grant_type,
        }

    def travel_get_login_status(self) -> dict[str, bool]:
        """Whether there is a token."""
        return {"status": self.access_token is not None}

    def get_budget_fiscal_year(
        self, lastModifiedAfter: str | None = None, includeRemoved: str | None = None
    ) -> dict[str, str]:
        """The budget's year."""
        return {"budget_fiscal_year": "2018"}

    def set_budget_limit(self, access_token: str, budget_limit: float) -> dict[str, float]:
        """Book nothing that costs more."""
        self._need_login(access_token)
        self.budget_limit = budget_limit
        return {"budget_limit": budget_limit}

    def register_credit_card(
        self,
        access_token: str,
        card_number: str,
        expiration_date: str,
        cardholder_name: str,
        card_verification_number: int,
    ) -> dict[str, str]:
        """Add a card, with nothing on it that is known."""
        self._need_login(access_token)
        card_id = self._number(100000000000, 999999999999)
        self.credit_card_list[card_id] = {
            "card_number": card_number,
            "expiration_date": expiration_date,
            "cardholder_name": cardholder_name,
            "card_verification_number": card_verification_number,
            "balance": 10000.0,
        }
        return {"card_id": card_id}

    def get_all_credit_cards(self) -> dict[str, dict[str, Any]]:
        """The cards by id."""
        return {"credit_card_list": self.credit_card_list}

    def get_credit_card_balance(self, access_token: str, card_id: str) -> dict[str, float]:
        """The balance of a card."""
        self._need_login(access_token)
        return {"card_balance": self._card(card_id)["balance"]}

    def list_all_airports(self) -> dict[str, list[str]]:
        """Their codes."""
        return {"airports": list(AIRPORTS.values())}

    def get_nearest_airport_by_city(self, location: str) -> dict[str, str]:
        """The code of the airport of a city."""
        if location not in AIRPORTS:
            raise Refused(f"no airport is known near {location}")
        return {"nearest_airport": AIRPORTS[location]}

    def get_flight_cost(
        self, travel_from: str, travel_to: str, travel_date: str, travel_class: Class
    ) -> dict[str, list[float]]:
        """The prices of a flight in dollars; there is one."""
        _day(travel_date)
        codes = list(AIRPORTS.values())
        for code in (travel_from, travel_to):
            if code not in codes:
                raise Refused(f"there is no airport {code!r}")
        if travel_from == travel_to:
            raise Refused("a flight goes somewhere else")
        apart = abs(codes.index(travel_from) - codes.index(travel_to))
        return {"travel_cost_list": [float((100 + 10 * apart) * _TIMES[travel_class])]}

    def book_flight(
        self,
        access_token: str,
        card_id: str,
        travel_date: str,
        travel_from: str,
        travel_to: str,
        travel_class: Class,
    ) -> dict[str, Any]:
        """Book and pay."""
        self._need_login(access_token)
        card = self._card(card_id)
        cost = self.get_flight_cost(travel_from, travel_to, travel_date, travel_class)["travel_cost_list"][0]
        if self.budget_limit is not None and cost > self.budget_limit:
            raise Refused(f"it costs {cost}, and the budget is {self.budget_limit}")
        _pay(card, cost)
        booking_id, transaction_id = self._number(1000000, 9999999), self._number(10000000, 99999999)
        self.booking_record[booking_id] = {
            "card_id": card_id,
            "travel_date": travel_date,
            "travel_from": travel_from,
            "travel_to": travel_to,
            "travel_class": travel_class,
            "travel_cost": cost,
            "transaction_id": transaction_id,
        }
        return {
            "booking_id": booking_id,
            "transaction_id": transaction_id,
            "booking_status": True,
            "booking_history": {},
        }

    def cancel_booking(self, access_token: str, booking_id: str) -> dict[str, bool]:
        """Cancel, with the money back."""
        self._need_login(access_token)
        booking = self._booking(booking_id)
        if booking.get("card_id") in self.credit_card_list:
            _pay(self.credit_card_list[booking["card_id"]], -booking["travel_cost"])
        del self.booking_record[booking_id]
        return {"cancel_status": True}

    def get_booking_history(self, access_token: str) -> dict[str, dict[str, Any]]:
        """All bookings by id."""
        self._need_login(access_token)
        return {"booking_history": self.booking_record}

    def purchase_insurance(
        self, access_token: str, insurance_type: str, insurance_cost: float, booking_id: str, card_id: str
    ) -> dict[str, Any]:
        """Insure a booking."""
        self._need_login(access_token)
        booking, card = self._booking(booking_id), self._card(card_id)
        if insurance_cost < 0:
            raise Refused("a cost is not below zero")
        _pay(card, insurance_cost)
        insurance_id = self._number(100000000, 999999999)
        insured = {"insurance_id": insurance_id, "insurance_type": insurance_type, "insurance_cost": insurance_cost}
        self.booking_record[booking_id] = {**booking, **insured}
        return {"insurance_id": insurance_id, "insurance_status": True}

    def retrieve_invoice(
        self, access_token: str, booking_id: str | None = None, insurance_id: str | None = None
    ) -> dict[str, dict[str, Any]]:
        """The cost of a booking, found by its id or by that of its insurance."""
        self._need_login(access_token)
        for id, booking in self.booking_record.items():
            if id == booking_id or (insurance_id and booking.get("insurance_id") == insurance_id):
                return {"invoice": {"booking_id": id, **booking}}
        raise Refused("there is no such booking")

    def contact_customer_support(self, booking_id: str, message: str) -> dict[str, str]:
        """Tell somebody of a problem with a booking."""
        self._booking(booking_id)
        return {"customer_support_message": "thank you; we look after it"}

    def verify_traveler_information(
        self, first_name: str, last_name: str, date_of_birth: str, passport_number: str
    ) -> dict[str, Any]:
        """Whether it is the user, of age, with a passport."""
        born = _day(date_of_birth)
        age = TODAY.year - born.year - ((TODAY.month, TODAY.day) < (born.month, born.day))
        failure = ""
        if (first_name, last_name) != (self.user_first_name, self.user_last_name):
            failure = "the name is not the user's"
        elif age < 18:
            failure = "a traveller is at least 18"
        elif not passport_number:
            failure = "there is no passport"
        return {"verification_status": not failure, "verification_failure": failure}

    def compute_exchange_rate(
        self, base_currency: Currency, target_currency: Currency, value: float
    ) -> dict[str, float]:
        """An amount in another currency."""
        return {"exchanged_value": round(value / PER_DOLLAR[base_currency] * PER_DOLLAR[target_currency], 2)}

    def _need_login(self, access_token: str) -> None:
        if access_token != self.access_token:
            raise Refused("the access token is not valid")

    def _card(self, card_id: str) -> dict[str, Any]:
        return item_of(self.credit_card_list, card_id, f"card {card_id!r}")

    def _booking(self, booking_id: str) -> dict[str, Any]:
        return item_of(self.booking_record, booking_id, f"booking {booking_id!r}")

    def _number(self, low: int, high: int) -> str:
        """The next number drawn, as text."""
        self._drawn.append((low, high))
        generator = random.Random(SEED)
        return str([generator.randint(*bounds) for bounds in self._drawn][-1])


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise Refused(f"{text!r} is no date of the form YYYY-MM-DD") from None


def _pay(card: dict[str, Any], cost: float) -> None:
    if cost > card.get("balance", 0.0):
        raise Refused(f"the card holds {card.get('balance', 0.0)}, less than {cost}")
    card["balance"] = round(card.get("balance", 0.0) - cost, 2)


__all__ = ["Travel"]
