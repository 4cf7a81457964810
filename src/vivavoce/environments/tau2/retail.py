"""The shop of τ²-bench: its tools over users, products and orders.

The names of tools and arguments are those of the official tasks. A tool enforces what the policy states of it. No tool
checks the rules that the policy leaves to the agent (who may ask for what, what must be confirmed first).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vivavoce.environments.functions import Refused
from vivavoce.environments.tau2.domain import Domain, read_json
from vivavoce.environments.tau2.records import Records, Tables
from vivavoce.environments.tau2.shared_tools import calculate, transfer_to_human_agents

Reason = Literal["no longer needed", "ordered by mistake"]
_CHANGED = "pending (items modified)"


def find_user_id_by_email(shop: Records, email: str) -> str:
    """Find the id of the user who has an email address.

    Args:
        email: Such as 'ada@example.com'.
    """
    for id, user in shop.all("users"):
        if user["email"].lower() == email.strip().lower():
            return id
    raise Refused(f"no user has the email address {email!r}")


def find_user_id_by_name_zip(shop: Records, first_name: str, last_name: str, zip: str) -> str:
    """Find the id of a user by name and zip code. Meant for users who cannot be found by their email address.

    Args:
        first_name: Such as 'Ada'.
        last_name: Such as 'Miller'.
        zip: Zip code of the user's default address, such as '12345'.
    """
    wanted = (first_name.lower(), last_name.lower(), zip)
    for id, user in shop.all("users"):
        if (user["name"]["first_name"].lower(), user["name"]["last_name"].lower(), user["address"]["zip"]) == wanted:
            return id
    raise Refused(f"no user is called {first_name} {last_name} and lives in {zip}")


def get_user_details(shop: Records, user_id: str) -> Mapping[str, Any]:
    """Look up a user: name, address, email, payment methods and ids of orders.

    Args:
        user_id: Such as 'ada_miller_1234'.
    """
    return shop.read("users", user_id)


def get_order_details(shop: Records, order_id: str) -> Mapping[str, Any]:
    """Look up an order: status, items, address, payments.

    Args:
        order_id: With the '#' in front of it, such as '#W0000000'.
    """
    return shop.read("orders", order_id)


def get_product_details(shop: Records, product_id: str) -> Mapping[str, Any]:
    """Look up a product with all of its variants: their options, prices, and whether they are available.

    Args:
        product_id: Of the product, which is not the id of one of its items.
    """
    return shop.read("products", product_id)


def get_item_details(shop: Records, item_id: str) -> Mapping[str, Any]:
    """Look up one variant of a product: its options, price, and whether it is available.

    Args:
        item_id: Of the variant, which is not the id of its product.
    """
    return _variant(shop, item_id)[1]


def list_all_product_types(shop: Records) -> dict[str, str]:
    """Name every kind of product with its product id."""
    return {product["name"]: id for id, product in sorted(shop.all("products"), key=lambda one: one[1]["name"])}


def cancel_pending_order(shop: Records, order_id: str, reason: Reason) -> Mapping[str, Any]:
    """Cancel an order whose status is 'pending' and refund it. The user has to confirm order and reason first.

    Args:
        order_id: With the '#' in front of it.
        reason: Why the user cancels.
    """
    _in_status(shop, order_id, "pending")
    order = shop.change("orders", order_id)
    order["status"], order["cancel_reason"] = "cancelled", reason
    for payment in list(order["payment_history"]):
        _refund(shop, order, payment["payment_method_id"], payment["amount"])
    return order


def modify_pending_order_address(
    shop: Records, order_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
) -> Mapping[str, Any]:
    """Change where an order whose status is 'pending' is sent. The user has to confirm the address first.

    Args:
        order_id: With the '#' in front of it.
        address1: Street and number.
        address2: Suite or apartment; may be empty.
        city: Such as 'Denver'.
        state: Such as 'CO'.
        country: Such as 'USA'.
        zip: Zip code.
    """
    _in_status(shop, order_id, "pending")
    order = shop.change("orders", order_id)
    order["address"] = _address(address1, address2, city, state, country, zip)
    return order


def modify_pending_order_payment(shop: Records, order_id: str, payment_method_id: str) -> Mapping[str, Any]:
    """Pay an order whose status is 'pending' by another method, and refund the first one. The user has to confirm it.

    Args:
        order_id: With the '#' in front of it.
        payment_method_id: One of the user's profile, such as 'gift_card_0000000'.
    """
    present = _in_status(shop, order_id, "pending")
    if len(present["payment_history"]) != 1:
        raise Refused(f"order {order_id} was not paid at once by a single method")
    (paid,) = present["payment_history"]
    _method(shop, present["user_id"], payment_method_id)
    if payment_method_id == paid["payment_method_id"]:
        raise Refused(f"{payment_method_id} is what the order was paid by")
    _can_pay(shop, present["user_id"], payment_method_id, paid["amount"])
    order = shop.change("orders", order_id)
    _pay(shop, order, payment_method_id, paid["amount"])
    _refund(shop, order, paid["payment_method_id"], paid["amount"])
    return order


def modify_pending_order_items(
    shop: Records, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> Mapping[str, Any]:
    """Change items of an order whose status is 'pending' into others of the same product. It can be done once an order:
    name all items together. The user has to confirm everything first.

    Args:
        order_id: With the '#' in front of it.
        item_ids: The items to change; one that was ordered twice may stand here twice.
        new_item_ids: What each of them becomes, in the same order.
        payment_method_id: Pays the difference in price, or receives it.
    """
    present = _in_status(shop, order_id, "pending")
    pairs, difference = _changes(shop, present, item_ids, new_item_ids, payment_method_id)
    order = shop.change("orders", order_id)
    if difference > 0:
        _pay(shop, order, payment_method_id, difference)
    elif difference < 0:
        _refund(shop, order, payment_method_id, -difference)
    for old, new in pairs:
        item = next(item for item in order["items"] if item["item_id"] == old)
        variant = _variant(shop, new)[1]
        item |= {"item_id": new, "price": variant["price"], "options": dict(variant["options"])}
    order["status"] = _CHANGED
    return order


def return_delivered_order_items(
    shop: Records, order_id: str, item_ids: list[str], payment_method_id: str
) -> Mapping[str, Any]:
    """Return items of an order whose status is 'delivered'. The user has to confirm them and the refund first.

    Args:
        order_id: With the '#' in front of it.
        item_ids: The items to return; one that was ordered twice may stand here twice.
        payment_method_id: Receives the refund: what the order was paid by, or a gift card of the user's profile.
    """
    present = _in_status(shop, order_id, "delivered")
    method = _method(shop, present["user_id"], payment_method_id)
    if method["source"] != "gift_card" and payment_method_id != present["payment_history"][0]["payment_method_id"]:
        raise Refused("a refund goes to what the order was paid by, or to a gift card")
    _need_items(present, item_ids)
    order = shop.change("orders", order_id)
    order |= {
        "status": "return requested",
        "return_items": sorted(item_ids),
        "return_payment_method_id": payment_method_id,
    }
    return order


def exchange_delivered_order_items(
    shop: Records, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> Mapping[str, Any]:
    """Exchange items of an order whose status is 'delivered' for others of the same product. It can be done once an
    order: name all items together. The user has to confirm everything first.

    Args:
        order_id: With the '#' in front of it.
        item_ids: The items to give back; one that was ordered twice may stand here twice.
        new_item_ids: What each of them is exchanged for, in the same order.
        payment_method_id: Pays the difference in price, or receives it.
    """
    present = _in_status(shop, order_id, "delivered")
    pairs, difference = _changes(shop, present, item_ids, new_item_ids, payment_method_id)
    order = shop.change("orders", order_id)
    order |= {
        "status": "exchange requested",
        "exchange_items": [list(pair) for pair in sorted(pairs)],
        "exchange_payment_method_id": payment_method_id,
        "exchange_price_difference": difference,
    }
    return order


def modify_user_address(
    shop: Records, user_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
) -> Mapping[str, Any]:
    """Change the default address of a user. The user has to confirm it first.

    Args:
        user_id: Such as 'ada_miller_1234'.
        address1: Street and number.
        address2: Suite or apartment; may be empty.
        city: Such as 'Denver'.
        state: Such as 'CO'.
        country: Such as 'USA'.
        zip: Zip code.
    """
    user = shop.change("users", user_id)
    user["address"] = _address(address1, address2, city, state, country, zip)
    return user


def _address(address1: str, address2: str, city: str, state: str, country: str, zip: str) -> dict[str, str]:
    return {
        "address1": address1,
        "address2": address2,
        "city": city,
        "country": country,
        "state": state,
        "zip": zip,
    }


def _in_status(shop: Records, order_id: str, status: str) -> Mapping[str, Any]:
    order = shop.read("orders", order_id)
    if order["status"] != status:
        raise Refused(f"order {order_id} is {order['status']}, not {status}")
    return order


def _variant(shop: Records, item_id: str) -> tuple[str, Mapping[str, Any]]:
    """The id of an item's product, and the item."""
    for id, product in shop.all("products"):
        if item_id in product["variants"]:
            return id, product["variants"][item_id]
    raise Refused(f"there is no item {item_id!r}")


def _need_items(order: Mapping[str, Any], item_ids: Sequence[str]) -> None:
    """Raises Refused unless the order holds all of these items."""
    if not item_ids:
        raise Refused("no item is named")
    if lacking := Counter(item_ids) - Counter(item["item_id"] for item in order["items"]):
        raise Refused(f"order {order['order_id']} does not hold {', '.join(lacking.elements())}")


def _changes(
    shop: Records, order: Mapping[str, Any], item_ids: Sequence[str], new_item_ids: Sequence[str], payment: str
) -> tuple[list[tuple[str, str]], float]:
    """The changed items and the difference in price. Raises Refused if a change is not allowed."""
    _need_items(order, item_ids)
    if len(item_ids) != len(new_item_ids):
        raise Refused(f"{len(item_ids)} items cannot become {len(new_item_ids)}")
    prices = {item["item_id"]: item["price"] for item in order["items"]}
    pairs, difference = list(zip(item_ids, new_item_ids, strict=True)), 0.0
    for old, new in pairs:
        product, variant = _variant(shop, new)
        if product != _variant(shop, old)[0]:
            raise Refused(f"{new} is another product than {old}")
        if old == new:
            raise Refused(f"{new} is the item that was ordered")
        if not variant["available"]:
            raise Refused(f"{new} is not available")
        difference += variant["price"] - prices[old]
    difference = round(difference, 2)
    _method(shop, order["user_id"], payment)
    _can_pay(shop, order["user_id"], payment, difference)
    return pairs, difference


def _method(shop: Records, user_id: str, payment_method_id: str) -> Mapping[str, Any]:
    methods = shop.read("users", user_id)["payment_methods"]
    if payment_method_id not in methods:
        raise Refused(f"{user_id} has no payment method {payment_method_id!r}")
    return methods[payment_method_id]


def _can_pay(shop: Records, user_id: str, payment_method_id: str, amount: float) -> None:
    method = _method(shop, user_id, payment_method_id)
    if method["source"] == "gift_card" and method["balance"] < amount:
        raise Refused(f"{payment_method_id} holds {method['balance']}, less than {amount}")


def _pay(shop: Records, order: dict[str, Any], payment_method_id: str, amount: float) -> None:
    _book(shop, order, "payment", payment_method_id, amount)


def _refund(shop: Records, order: dict[str, Any], payment_method_id: str, amount: float) -> None:
    _book(shop, order, "refund", payment_method_id, amount)


def _book(shop: Records, order: dict[str, Any], kind: Literal["payment", "refund"], method: str, amount: float) -> None:
    """Write a payment or refund into the order; a gift card changes at once."""
    order["payment_history"].append({"transaction_type": kind, "amount": amount, "payment_method_id": method})
    if _method(shop, order["user_id"], method)["source"] == "gift_card":
        card = shop.change("users", order["user_id"])["payment_methods"][method]
        card["balance"] = round(card["balance"] + (amount if kind == "refund" else -amount), 2)


def _tables(folder: Path) -> Tables:
    return read_json(folder, "db.json")


RETAIL = Domain(
    name="tau2_retail",
    folder="retail",
    tables=_tables,
    functions=(
        calculate,
        cancel_pending_order,
        exchange_delivered_order_items,
        find_user_id_by_email,
        find_user_id_by_name_zip,
        get_item_details,
        get_order_details,
        get_product_details,
        get_user_details,
        list_all_product_types,
        modify_pending_order_address,
        modify_pending_order_items,
        modify_pending_order_payment,
        modify_user_address,
        return_delivered_order_items,
        transfer_to_human_agents,
    ),
)

__all__ = ["RETAIL"]
