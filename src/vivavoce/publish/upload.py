"""Sending prepared folders to the Hub, by its own package."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vivavoce.errors import DataError, MissingDependency
from vivavoce.publish.preparing import Shipment


def upload(shipments: Sequence[Shipment], *, public: bool = False, endpoint: str | None = None) -> list[str]:
    """Create the repositories, if they are not there, and send each folder as one commit; their addresses.

    The token is the one that ``hf auth login`` has stored, or ``HF_TOKEN``. Raises MissingDependency without
    huggingface_hub, DataError if the Hub refuses or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    except ImportError as error:
        do = "pip install huggingface_hub"
        raise MissingDependency("huggingface_hub is not installed", "viva publish", do) from error
    api, made = HfApi(endpoint=endpoint), list[str]()
    for one in shipments:
        try:
            api.create_repo(one.repository, repo_type=one.kind, private=not public, exist_ok=True)
            api.upload_folder(
                folder_path=one.folder,
                repo_id=one.repository,
                repo_type=one.kind,
                commit_message="Published by vivavoce",
            )
        except OfflineModeIsEnabled as error:
            do = "unset HF_HUB_OFFLINE, or use --dry-run"
            raise DataError("the Hub is switched off", "HF_HUB_OFFLINE", do) from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            do = "log in: `hf auth login`, with a token that may write" if status in (401, 403) else "try again later"
            raise DataError(f"the Hub refused: {_short(str(error))}", one.repository, do) from error
        except OSError as error:
            raise DataError(
                f"the Hub cannot be reached: {_short(str(error))}", one.repository, "check the network"
            ) from error
        made.append(f"{api.endpoint}/{'datasets/' if one.kind == 'dataset' else ''}{one.repository}")
    return made


def _short(text: str) -> str:
    token = os.environ.get("HF_TOKEN")
    redacted = text.replace(token, "(token)") if token else text
    return " ".join(redacted.split())[:300]


__all__ = ["upload"]
