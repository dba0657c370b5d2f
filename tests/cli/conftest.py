"""The command line in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hansa.cli import main


@pytest.fixture
def hansa_cli(home: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            main(list(words))
        captured = capsys.readouterr()
        assert end.value.code == status, captured.out + captured.err
        return captured.out + captured.err

    return call
