"""Prices, caps, and the ledger that enforces them: a call reserves the most that it may cost before it is made.

A cap applies to the run, to an agent or to one question in one stage. A call waits while reservations of others leave
it no room. It is refused if no call in flight can give any back. So the sum of what was spent never passes a cap by
more than calls cost beyond their reservation, which is one token for each byte of the request, and ``max_new_tokens``.

A call that was cut off, also by a kill, counts with its reservation, and so does a call whose endpoint reports no
usage. Two things may cost more: an attempt that a backend repeats after the endpoint counted it, and a chat template
longer than the request's own JSON. Seconds cannot be reserved: after the last one no call is admitted, and those in
flight finish in their own time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.errors import BudgetReached, UserError
from vivavoce.records import Usage


class Price(BaseModel):
    """Prices of a million tokens, in the recipe's currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(ge=0, description="price of a million prompt tokens")
    completion: float = Field(ge=0, description="price of a million tokens that the model writes")
    cached: float | None = Field(
        default=None,
        ge=0,
        description="price of a million prompt tokens that are read from a cache; None: as of others",
    )

    def of(self, usage: Usage) -> float:
        """The cost of these tokens; ``usage.cached`` are some of ``usage.prompt``."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = usage.prompt - usage.cached
        return (fresh * self.prompt + usage.cached * cached + usage.completion * self.completion) / 1e6


FREE = Price(prompt=0, completion=0)


class Caps(BaseModel):
    """The most that may be spent; None is no cap."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    money: float | None = Field(
        default=None, ge=0, description="money, in the recipe's currency, by the prices of the agents"
    )
    tokens: int | None = Field(default=None, ge=0, description="prompt tokens and completion tokens together")
    calls: int | None = Field(
        default=None, ge=0, description="calls that are sent; replies from the journal do not count"
    )
    seconds: float | None = Field(default=None, ge=0, description="seconds in which at least one call is in flight")

    def __bool__(self) -> bool:
        return any(cap is not None for cap in (self.money, self.tokens, self.calls, self.seconds))

    def share(self, parts: int) -> Caps:
        """The caps of one of so many parts, so that together they keep to these. Parts run side by side, so each has
        the whole time.
        """
        if parts == 1:
            return self
        whole = {"tokens": self.tokens, "calls": self.calls}
        shared = {name: None if cap is None else cap // parts for name, cap in whole.items()}
        money = None if self.money is None else self.money / parts
        return self.model_copy(update={**shared, "money": money})


UNCAPPED = Caps()


class Budget(BaseModel):
    """The ``budget:`` of a recipe. A teacher's budget is with the teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Caps = Field(
        default=Caps(),
        description="caps of all calls, the student's too; the run stops there, and goes on after you raise them",
    )
    question: Caps = Field(
        default=Caps(),
        description="caps of one question's debate or review, which then ends early; tests have no such cap",
    )


class Spent(NamedTuple):
    """One recorded call, as the ledger needs it."""

    agent: str
    stage: str
    question: str | None
    usage: Usage
    calls: int
    begun: float
    ended: float


class _Held(NamedTuple):
    """The reservation of a call."""

    money: float
    tokens: int


class Account:
    """The spend and reservations of one scope, its caps, and the calls that wait for room in it."""

    __slots__ = (
        "busy_s",
        "calls",
        "caps",
        "closed",
        "held",
        "held_tokens",
        "inside",
        "money",
        "since",
        "tokens",
        "turns",
    )

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self.money = self.held = self.busy_s = self.since = 0.0
        self.tokens = self.held_tokens = self.calls = self.inside = 0
        self.closed = False
        self.turns: deque[tuple[_Held, asyncio.Future[bool]]] = deque()

    def seconds(self) -> float:
        """Time in which calls were in flight, up to now."""
        return self.busy_s + (time.time() - self.since if self.inside else 0.0)

    def lacking(self, held: _Held) -> str | None:
        """The cap that leaves no room for a call."""
        caps = self.caps
        if caps.calls is not None and self.calls + self.inside + 1 > caps.calls:
            return "calls"
        if caps.money is not None and self.money + self.held + held.money > caps.money:
            return "money"
        if caps.tokens is not None and self.tokens + self.held_tokens + held.tokens > caps.tokens:
            return "tokens"
        return "seconds" if caps.seconds is not None and self.seconds() >= caps.seconds else None

    async def enter(self, held: _Held) -> bool:
        """Reserve, in the order of asking; False if there is no room and none can come free."""
        if not self.turns and (self.closed or not self.caps or self.lacking(held) is None):
            if not self.closed:
                self._take(held)
            return not self.closed
        if not self.inside:  # then no call waits either
            self.closed = True
            return False
        turn = asyncio.get_running_loop().create_future()
        self.turns.append((held, turn))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave(held, Usage(), 0.0, 0)
            raise

    def close(self) -> None:
        """Admit no further call, not even those that wait."""
        self.closed = True
        turns, self.turns = self.turns, deque()
        for _, turn in turns:
            if not turn.done():
                turn.set_result(False)

    def _take(self, held: _Held) -> None:
        if not self.inside:
            self.since = time.time()
        self.inside += 1
        self.held += held.money
        self.held_tokens += held.tokens

    def leave(self, held: _Held, usage: Usage, money: float, calls: int = 1) -> None:
        """Give back a reservation, write down the spend, and admit waiting calls."""
        self.inside -= 1
        self.held_tokens -= held.tokens
        self.held = self.held - held.money if self.inside else 0.0  # no rounding error is left behind
        self.spend(usage, money, calls)
        if not self.inside:
            self.busy_s += time.time() - self.since
        while self.turns:
            held, turn = self.turns[0]
            if not turn.done():
                if not self.closed and self.lacking(held) is None:
                    self._take(held)
                    turn.set_result(True)
                elif self.closed or not self.inside:
                    self.closed = True
                    turn.set_result(False)
                else:
                    return
            self.turns.popleft()

    def spend(self, usage: Usage, money: float, calls: int) -> None:
        self.money += money
        self.tokens += usage.prompt + usage.completion
        self.calls += calls

    def spent(self, kind: str) -> float:
        """The spend under one kind of cap, without reservations."""
        return self.seconds() if kind == "seconds" else getattr(self, kind)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Permission to make one call. It is given back by :meth:`Ledger.settle`."""

    agent: str
    held: _Held
    most: Usage
    """The most that the call may take."""
    accounts: tuple[Account, ...]


class Ledger:
    """The spend of a run, and whether it may spend more. A journal asks it before each call.

    Args:
        prices: By name of the agent; an agent without a price is free.
        run, agents, question: Caps of the whole, of some agents by name, and of every question in every stage.
        currency: The name of the currency.
    """

    def __init__(
        self,
        prices: Mapping[str, Price] = {},
        *,
        run: Caps = UNCAPPED,
        agents: Mapping[str, Caps] = {},
        question: Caps = UNCAPPED,
        currency: str = "USD",
    ) -> None:
        self.prices, self.question, self.currency = dict(prices), question, currency
        self.run = Account(run)
        self.agents = {name: Account(caps) for name, caps in agents.items() if caps}
        self.questions = dict[tuple[str, str], Account]()
        self.ended: UserError | None = None
        """The error that ended all calls: a cap of the run or of an agent is reached, or an agent cannot be asked."""
        caps = [run, question, *agents.values()]
        self._weighs = any(c.money is not None or c.tokens is not None for c in caps)
        self.lasting = any((c.money, c.tokens, c.calls) != (None, None, None) for c in (run, *agents.values()))
        """Whether reservations must outlive a kill: a call that was under way then may have been charged."""
        self.needs_calls = bool(question) or any(c.seconds is not None for c in caps)
        """Whether the past must be told call by call, not in sums."""
        self._in_flight = 0
        self._end_by: float | None = None
        """The time, in the event loop's seconds, at which calls in flight are waited for no longer; None: as long as
        it takes.
        """
        self._drained: list[asyncio.Future[None]] = []

    def recall(self, past: Iterable[Spent]) -> None:
        """Take in what earlier sessions spent or may have spent, in the order in which the calls began."""
        until = dict[int, float]()
        for call in past:
            money = self.cost(call.agent, call.usage)
            for account in self._accounts(call.agent, call.stage, call.question):
                account.spend(call.usage, money, call.calls)
                free = max(call.begun, until.get(id(account), call.begun))
                account.busy_s += max(0.0, call.ended - free)
                until[id(account)] = max(call.ended, free)

    def cost(self, agent: str, usage: Usage) -> float:
        """The cost of an agent's tokens."""
        price = self.prices.get(agent)
        return price.of(usage) if price else 0.0

    async def admit(self, agent: str, stage: str, question: str | None, request: str, new_tokens: int) -> Ticket | None:
        """Reserve the most that a call may cost, waiting for room; None if its question has reached its cap.

        Raises BudgetReached if the run or the agent has reached its cap, once all calls in flight are written down, and
        the error that ended the run if another did.
        """
        held, most = _Held(0.0, 0), Usage()
        if self._weighs:
            most = Usage(len(request.encode()), new_tokens)
            held = _Held(self.cost(agent, most), most.prompt + most.completion)
        entered: list[Account] = []
        try:
            for account in self._accounts(agent, stage, question):
                if self.ended is None and await account.enter(held):
                    entered.append(account)
                    continue
                if self.ended is None and account is not self.run and account is not self.agents.get(agent):
                    return None
                await self._stop(agent, account, held, entered)
        except BaseException:
            self._give_back(entered, held)
            raise
        self._in_flight += 1
        return Ticket(agent, held, most, tuple(entered))

    def settle(self, ticket: Ticket, usage: Usage) -> None:
        """Note that a call has ended: it is written down, or was cut off and counts with the most that it may have
        taken.
        """
        self._in_flight -= 1
        money = self.cost(ticket.agent, usage)
        for account in reversed(ticket.accounts):
            account.leave(ticket.held, usage, money)
        if self.ended is not None and not self._in_flight:
            for waiting in self._drained:
                if not waiting.done():
                    waiting.set_result(None)
            self._drained.clear()

    def _accounts(self, agent: str, stage: str, question: str | None) -> list[Account]:
        """The scopes of a call, from the narrowest. Waiting in one does not block calls that only a wider one
        limits.
        """
        accounts = []
        if question is not None and self.question:
            accounts.append(self.questions.setdefault((stage, question), Account(self.question)))
        if agent in self.agents:
            accounts.append(self.agents[agent])
        return [*accounts, self.run]

    def charge_for(self, ticket: Ticket, usage: Usage) -> Usage:
        """The tokens that an answered call counts with: those that its endpoint told, otherwise those that were
        reserved.

        Without a cap nothing was reserved, and tokens that are not told count as 0.
        """
        return Usage(usage.prompt or ticket.most.prompt, usage.completion or ticket.most.completion, usage.cached)

    async def end(self, why: UserError, within_s: float) -> NoReturn:
        """Admit no further call, and raise ``why`` when those in flight are written down, or after so long."""
        if self.ended is None:
            self._close(why)
            self._end_by = asyncio.get_running_loop().time() + within_s
        await self._drain()
        raise self._error_again()

    async def _stop(self, agent: str, account: Account, held: _Held, entered: list[Account]) -> NoReturn:
        """The end at a cap: no further call is admitted, and those in flight are waited for."""
        if self.ended is None:
            self._close(self._why(agent, account, held))
        self._give_back(entered, held)
        entered.clear()
        await self._drain()
        raise self._error_again()

    def _close(self, why: UserError) -> None:
        self.ended = why
        for account in (self.run, *self.agents.values()):
            account.close()

    async def _drain(self) -> None:
        """Wait until no call is in flight, or it has taken too long."""
        if self._in_flight:
            loop = asyncio.get_running_loop()
            drained = loop.create_future()
            self._drained.append(drained)
            left_s = None if self._end_by is None else max(0.0, self._end_by - loop.time())
            await asyncio.wait([drained], timeout=left_s)

    def _error_again(self) -> UserError:
        """A new error for each caller, because an error that is raised again and again keeps every traceback."""
        assert self.ended is not None
        return type(self.ended)(*self.ended.args)

    def _give_back(self, entered: list[Account], held: _Held) -> None:
        for account in reversed(entered):
            account.leave(held, Usage(), 0.0, 0)

    def _why(self, agent: str, account: Account, held: _Held) -> BudgetReached:
        kind = account.lacking(held) or "calls"
        owner, key = ("the run", "budget.run") if account is self.run else (f"`{agent}`", "budget of the agent")
        cap, spent = getattr(account.caps, kind), account.spent(kind)
        next_one = {"money": held.money, "tokens": held.tokens}.get(kind)
        more = f", and the next call may cost {self.amount(next_one, kind)}" if next_one else ""
        return BudgetReached(
            f"the cap of {owner} is reached: {self.amount(spent, kind)} of {self.amount(cap, kind)} spent{more}",
            f"{key}.{kind}" if account is self.run else f"{key} {agent}: {kind}",
            "raise the cap and give the same command: the run goes on from here, and pays for no call twice",
        )

    def amount(self, amount: float, kind: str = "money") -> str:
        """An amount in words."""
        if kind == "money":
            return f"{money(amount)} {self.currency}"
        return f"{amount:,.1f} s" if kind == "seconds" else f"{amount:,.0f} {kind}"

    @property
    def summary(self) -> str:
        """A summary of the spend so far, in a few words."""
        caps = self.run.caps
        if any(price != FREE for price in self.prices.values()):
            of = "" if caps.money is None else f" of {money(caps.money)}"
            return f"{money(self.run.money)}{of} {self.currency}"
        of = "" if caps.tokens is None else f" of {caps.tokens:,}"
        return f"{self.run.tokens:,}{of} tokens"


def money(amount: float) -> str:
    """The amount with two decimals, or more if it is small: ``12.30``, ``0.0042``."""
    return f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}" if amount < 1e-4 else f"{amount:.4f}"


__all__ = ["FREE", "Account", "Budget", "Caps", "Ledger", "Price", "Spent", "Ticket", "money"]
