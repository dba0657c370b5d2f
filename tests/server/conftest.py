"""A server in this process with three sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import in_process
from league import League


@pytest.fixture
def league(tmp_path: Path) -> Iterator[League]:
    with in_process(tmp_path) as server:
        yield League(server)
