"""The services there are."""

from __future__ import annotations

from vivavoce.environments.bfcl.file_system import FileSystem
from vivavoce.environments.bfcl.service import Service

SERVICES: dict[str, type[Service]] = {service.NAME: service for service in (FileSystem,)}
"""By the name that official rows have for them."""

__all__ = ["SERVICES"]
