"""Hansa: federated learning that starts in seconds, runs offline and survives any crash."""

from __future__ import annotations

__version__ = "0.1.0"
