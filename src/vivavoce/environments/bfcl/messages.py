"""Messages from one user of a workspace to others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vivavoce.environments.bfcl.service import Refused, Service

_USERS = {"Alice": "USR001", "Bob": "USR002", "Catherine": "USR003", "Daniel": "USR004"}
"""The users if the configuration names none."""


class Messages(Service):
    """A workspace. The inbox is a list of sent messages, each under the id of its receiver."""

    NAME = "MessageAPI"
    DOCUMENT = "message_api.json"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.user_map: dict[str, str] = dict(config.get("user_map", _USERS))
        self.user_count: int = config.get("user_count", len(self.user_map))
        self.inbox: list[dict[str, str]] = [
            {receiver: text}
            for entry in config.get("inbox", [])
            for receiver, texts in entry.items()
            for text in ([texts] if isinstance(texts, str) else texts)
        ]
        self.message_count: int = config.get("message_count", len(self.inbox))
        self.current_user: str | None = config.get("current_user")

    def list_users(self) -> dict[str, list[str]]:
        """The names of all."""
        return {"user_list": list(self.user_map)}

    def get_user_id(self, user: str) -> dict[str, str]:
        """The id of a name."""
        if user not in self.user_map:
            raise Refused(f"there is no user {user!r}")
        return {"user_id": self.user_map[user]}

    def message_login(self, user_id: str) -> dict[str, Any]:
        """Log in."""
        self._need_user(user_id)
        self.current_user = user_id
        return {"login_status": True, "message": f"{user_id} is logged in"}

    def message_get_login_status(self) -> dict[str, bool]:
        """Whether somebody is logged in."""
        return {"login_status": self.current_user is not None}

    def send_message(self, receiver_id: str, message: str) -> dict[str, Any]:
        """Send."""
        self._need_login()
        self._need_user(receiver_id)
        self.inbox.append({receiver_id: message})
        self.message_count += 1
        return {"sent_status": True, "message_id": self.message_count, "message": f"sent to {receiver_id}"}

    def delete_message(self, receiver_id: str) -> dict[str, Any]:
        """Delete the last message to somebody."""
        self._need_login()
        for entry in reversed(self.inbox):
            if receiver_id in entry:
                self.inbox.remove(entry)
                return {"deleted_status": True, "receiver_id": receiver_id, "message": "the last message is deleted"}
        raise Refused(f"there is no message to {receiver_id}")

    def view_messages_sent(self) -> dict[str, dict[str, list[str]]]:
        """All that was sent, by receiver."""
        self._need_login()
        sent: dict[str, list[str]] = {}
        for receiver, text in self._outbox():
            sent.setdefault(receiver, []).append(text)
        return {"messages": sent}

    def search_messages(self, keyword: str) -> dict[str, list[dict[str, str]]]:
        """Messages that hold a word, however it is written."""
        self._need_login()
        matches = [(receiver, text) for receiver, text in self._outbox() if keyword.lower() in text.lower()]
        return {"results": [{"receiver_id": receiver, "message": text} for receiver, text in matches]}

    def get_message_stats(self) -> dict[str, dict[str, int]]:
        """The number of messages that came in, and of their senders."""
        self._need_login()
        receivers = [receiver for receiver, _ in self._outbox()]
        return {
            "stats": {
                "received_count": receivers.count(self.current_user or ""),
                "total_contacts": len(set(receivers) - {self.current_user}),
            }
        }

    def add_contact(self, user_name: str) -> dict[str, Any]:
        """Add a person, with the next free id."""
        if user_name in self.user_map:
            raise Refused(f"there is a user {user_name!r} already")
        self.user_count += 1
        number = self.user_count
        while (user_id := f"USR{number:03}") in self.user_map.values():
            number += 1
        self.user_map[user_name] = user_id
        return {"added_status": True, "user_id": user_id, "message": f"{user_name} is added"}

    def _outbox(self) -> list[tuple[str, str]]:
        return [(receiver, text) for entry in self.inbox for receiver, text in entry.items()]

    def _need_login(self) -> None:
        if self.current_user is None:
            raise Refused("log in first, by message_login")

    def _need_user(self, user_id: str) -> None:
        if user_id not in self.user_map.values():
            raise Refused(f"there is no user of the id {user_id!r}")


__all__ = ["Messages"]
