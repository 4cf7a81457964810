"""The services there are."""

from __future__ import annotations

from vivavoce.environments.bfcl.calculator import Calculator
from vivavoce.environments.bfcl.file_system import FileSystem
from vivavoce.environments.bfcl.messages import Messages
from vivavoce.environments.bfcl.posts import Posts
from vivavoce.environments.bfcl.service import Service
from vivavoce.environments.bfcl.tickets import Tickets
from vivavoce.environments.bfcl.trading import Trading
from vivavoce.environments.bfcl.travel import Travel
from vivavoce.environments.bfcl.vehicle import Vehicle

SERVICES: dict[str, type[Service]] = {
    service.NAME: service for service in (Calculator, FileSystem, Messages, Posts, Tickets, Trading, Travel, Vehicle)
}
"""The services by their names in official rows."""

__all__ = ["SERVICES"]
