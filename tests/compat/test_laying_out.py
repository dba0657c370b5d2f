"""A project that an import makes is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.compat.laying_out import lay_out


def test_a_folder_that_could_not_be_written_to_the_end_is_not_there(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        assert (folder / "app" / "train.py").read_bytes() == b"x = 1"
        raise OSError(28, "No space left on device")

    code, texts = {"app/train.py": b"x = 1"}, {"plan.toml": "rounds = 1"}
    with pytest.raises(OSError, match="No space"):
        lay_out(tmp_path / "mine", code, texts, more=full)
    assert not list(tmp_path.iterdir())
    lay_out(tmp_path / "mine", code, texts)
    assert (tmp_path / "mine" / "plan.toml").read_text() == "rounds = 1"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
