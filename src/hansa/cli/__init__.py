"""The command line: `hansa VERB`, one file a verb, imported when it is called."""

from __future__ import annotations

from hansa.cli.main import main

__all__ = ["main"]
