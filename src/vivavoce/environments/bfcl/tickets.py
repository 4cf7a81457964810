"""Tickets of a company's support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.environments.bfcl.service import Refused, Service


class Updates(BaseModel):
    """The fields of a ticket that can be changed."""

    model_config = ConfigDict(extra="forbid")

    title: str | None = None
    description: str | None = None
    status: str | None = None
    priority: int | None = Field(None, ge=1, le=5)


class Tickets(Service):
    """A queue of tickets. One has to be logged in to make one; any name and password will do."""

    NAME = "TicketAPI"
    DOCUMENT = "ticket_api.json"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.ticket_queue: list[dict[str, Any]] = config.get("ticket_queue", [])
        self.ticket_counter: int = config.get("ticket_counter", 1)
        self.current_user: str | None = config.get("current_user")

    def ticket_login(self, username: str, password: str) -> dict[str, bool]:
        """Log in."""
        if not username or not password:
            return {"success": False}
        self.current_user = username
        return {"success": True}

    def logout(self) -> dict[str, bool]:
        """Log out."""
        was = self.current_user is not None
        self.current_user = None
        return {"success": was}

    def ticket_get_login_status(self) -> dict[str, bool]:
        """Whether somebody is logged in."""
        return {"login_status": self.current_user is not None}

    def create_ticket(self, title: str, description: str = "", priority: int = 1) -> dict[str, Any]:
        """Make a ticket. It is returned with who made it, which the document leaves out (upstream)."""
        user = self._need_login()
        if not 1 <= priority <= 5:
            raise Refused("a priority is 1 to 5")
        ticket = {
            "id": self.ticket_counter,
            "title": title,
            "description": description,
            "status": "Open",
            "priority": priority,
            "created_by": user,
        }
        self.ticket_queue.append(ticket)
        self.ticket_counter += 1
        return dict(ticket)

    def get_ticket(self, ticket_id: int) -> dict[str, Any]:
        """One ticket."""
        return self._ticket(ticket_id)

    def get_user_tickets(self, status: str | None = None) -> list[dict[str, Any]]:
        """One's own tickets, all or those of a status."""
        user = self._need_login()
        created = [ticket for ticket in self.ticket_queue if ticket.get("created_by") == user]
        return [t for t in created if status is None or str(t.get("status", "")).lower() == status.lower()]

    def edit_ticket(self, ticket_id: int, updates: Updates) -> dict[str, str]:
        """Change the given fields of a ticket."""
        self._ticket(ticket_id).update(updates.model_dump(exclude_none=True))
        return {"status": f"ticket {ticket_id} is changed"}

    def resolve_ticket(self, ticket_id: int, resolution: str) -> dict[str, str]:
        """Say how a ticket was resolved."""
        ticket = self._ticket(ticket_id)
        if ticket.get("status") == "Resolved":
            raise Refused(f"ticket {ticket_id} is resolved already")
        ticket.update(status="Resolved", resolution=resolution)
        return {"status": f"ticket {ticket_id} is resolved"}

    def close_ticket(self, ticket_id: int) -> dict[str, str]:
        """Close a ticket."""
        ticket = self._ticket(ticket_id)
        if ticket.get("status") == "Closed":
            raise Refused(f"ticket {ticket_id} is closed already")
        ticket["status"] = "Closed"
        return {"status": f"ticket {ticket_id} is closed"}

    def _need_login(self) -> str:
        if self.current_user is None:
            raise Refused("log in first, by ticket_login")
        return self.current_user

    def _ticket(self, ticket_id: int) -> dict[str, Any]:
        for ticket in self.ticket_queue:
            if ticket.get("id") == ticket_id:
                return ticket
        raise Refused(f"there is no ticket {ticket_id}")


__all__ = ["Tickets"]
