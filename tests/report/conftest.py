from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.whole_run import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a whole run."""
    return write_run(tmp_path_factory.mktemp("run") / "demo")
