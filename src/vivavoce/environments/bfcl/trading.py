"""Stocks: a list that is watched, orders, and an account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vivavoce.environments.bfcl.service import Refused, Service, item_of

NOW = "2024-10-30 10:30:00"
"""It is always the same time."""
SYMBOLS = {
    "Apple": "AAPL",
    "Google": "GOOG",
    "Tesla": "TSLA",
    "Microsoft": "MSFT",
    "Nvidia": "NVDA",
    "Amazon": "AMZN",
    "Alpha Tech": "ALPH",
    "Omega Industries": "OMEG",
    "Quasar Ltd.": "QUAS",
    "Neptune Systems": "NEPT",
    "Synex Solutions": "SYNX",
    "Zeta Corp": "ZETA",
}
SECTORS = {"technology": ["AAPL", "GOOG", "MSFT", "NVDA"], "automobile": ["TSLA", "F", "GM"]}


class Trading(Service):
    """One account. Stocks are those of the configuration. An agent that is not logged in can only look at them."""

    NAME = "TradingBot"
    DOCUMENT = "trading_bot.json"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.orders: dict[int, dict[str, Any]] = {int(id): order for id, order in config.get("orders", {}).items()}
        account = {"account_id": 12345, "balance": 10000.0, "binding_card": 1974202140965533}
        self.account_info: dict[str, Any] = {**account, **config.get("account_info", {})}
        self.authenticated: bool = config.get("authenticated", False)
        self.market_status: str = config.get("market_status", "Open")
        self.order_counter: int = config.get("order_counter", max(self.orders, default=12445) + 1)
        self.stocks: dict[str, dict[str, float]] = config.get("stocks", {})
        self.watch_list: list[str] = config.get("watch_list", [])
        self.transaction_history: list[dict[str, Any]] = config.get("transaction_history", [])

    def trading_login(self, username: str, password: str) -> dict[str, str]:
        """Log in; any name and password will do."""
        if not username or not password:
            raise Refused("a name and a password are needed")
        if self.authenticated:
            return {"status": "logged in before"}
        self.authenticated = True
        return {"status": "logged in"}

    def trading_logout(self) -> dict[str, str]:
        """Log out."""
        was, self.authenticated = self.authenticated, False
        return {"status": "logged out" if was else "nobody was logged in"}

    def trading_get_login_status(self) -> dict[str, bool]:
        """Whether somebody is logged in."""
        return {"status": self.authenticated}

    def get_current_time(self) -> dict[str, str]:
        """The time."""
        return {"current_time": "10:30 AM"}

    def get_stock_info(self, symbol: str) -> dict[str, float]:
        """Price, change, volume and moving averages."""
        return self._stock(symbol)

    def get_symbol_by_name(self, name: str) -> dict[str, str]:
        """The symbol of a company."""
        return {"symbol": SYMBOLS.get(name, "Stock not found")}

    def get_available_stocks(self, sector: str) -> dict[str, list[str]]:
        """The symbols of a sector."""
        if sector.lower() not in SECTORS:
            raise Refused(f"there is no sector {sector!r}")
        return {"stock_list": SECTORS[sector.lower()]}

    def filter_stocks_by_price(self, stocks: list[str], min_price: float, max_price: float) -> dict[str, list[str]]:
        """Those whose price is in a range."""
        return {"filtered_stocks": [s for s in stocks if min_price <= self._stock(s)["price"] <= max_price]}

    def notify_price_change(self, stocks: list[str], threshold: float) -> dict[str, str]:
        """Name those that changed by at least so many per cent."""
        changed = [s for s in stocks if abs(self._stock(s)["percent_change"]) >= threshold]
        return {"notification": f"changed: {', '.join(changed)}" if changed else "nothing changed that much"}

    def get_watchlist(self) -> dict[str, list[str]]:
        """The stocks on the watch list."""
        self._need_login()
        return {"watchlist": self.watch_list}

    def add_to_watchlist(self, stock: str) -> dict[str, list[str]]:
        """Watch a stock."""
        self._need_login()
        self._stock(stock)
        if stock not in self.watch_list:
            self.watch_list.append(stock)
        return {"watchlist": self.watch_list}

    def remove_stock_from_watchlist(self, symbol: str) -> dict[str, str]:
        """Watch it no longer."""
        self._need_login()
        if symbol not in self.watch_list:
            raise Refused(f"{symbol!r} is not watched")
        self.watch_list.remove(symbol)
        return {"status": f"{symbol} is watched no longer"}

    def place_order(self, order_type: Literal["Buy", "Sell"], symbol: str, price: float, amount: int) -> dict[str, Any]:
        """Order so many shares, to be paid from the account."""
        self._need_login()
        self._stock(symbol)
        if price <= 0 or amount <= 0:
            raise Refused("price and amount are above zero")
        if order_type == "Buy" and price * amount > self.account_info["balance"]:
            raise Refused(f"the account holds {self.account_info['balance']}, less than {price * amount}")
        id = self.order_counter
        order = {"id": id, "order_type": order_type, "symbol": symbol, "price": price, "amount": amount}
        self.orders[id] = {**order, "status": "Open"}
        self.order_counter += 1
        return {"order_id": id, "order_type": order_type, "status": "Open", "price": price, "amount": amount}

    def get_order_details(self, order_id: int) -> dict[str, Any]:
        """One order."""
        self._need_login()
        return self._order(order_id)

    def get_order_history(self) -> dict[str, list[int]]:
        """The ids of all orders."""
        self._need_login()
        return {"order_history": list(self.orders)}

    def cancel_order(self, order_id: int) -> dict[str, Any]:
        """Cancel an order that is not completed."""
        self._need_login()
        order = self._order(order_id)
        if order["status"] in ("Completed", "Cancelled"):
            raise Refused(f"order {order_id} is {order['status'].lower()}")
        order["status"] = "Cancelled"
        return {"order_id": order_id, "status": "Cancelled"}

    def get_account_info(self) -> dict[str, Any]:
        """Id, balance and card."""
        self._need_login()
        return self.account_info

    def fund_account(self, amount: float) -> dict[str, Any]:
        """Pay in."""
        return self._pay("deposit", amount)

    def withdraw_funds(self, amount: float) -> dict[str, Any]:
        """Take out."""
        return self._pay("withdrawal", amount)

    def get_transaction_history(
        self, start_date: str | None = None, end_date: str | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """The payments in and out of the account, from one day to another."""
        self._need_login()
        first, last = start_date or "", end_date or "9999"
        return {"transaction_history": [t for t in self.transaction_history if first <= t["timestamp"][:10] <= last]}

    def _pay(self, kind: Literal["deposit", "withdrawal"], amount: float) -> dict[str, Any]:
        self._need_login()
        if amount <= 0:
            raise Refused("an amount is above zero")
        balance = self.account_info["balance"]
        if kind == "withdrawal" and amount > balance:
            raise Refused(f"the account holds {balance}, less than {amount}")
        self.account_info["balance"] = round(balance + (amount if kind == "deposit" else -amount), 2)
        self.transaction_history.append({"type": kind, "amount": amount, "timestamp": NOW})
        return {"status": f"{kind} made", "new_balance": self.account_info["balance"]}

    def _need_login(self) -> None:
        if not self.authenticated:
            raise Refused("log in first, by trading_login")

    def _stock(self, symbol: str) -> dict[str, float]:
        return item_of(self.stocks, symbol, f"stock {symbol!r}")

    def _order(self, order_id: int) -> dict[str, Any]:
        return item_of(self.orders, order_id, f"order {order_id}")


__all__ = ["Trading"]
