"""What a round is, apart from who performs it."""

from hansa.rounds.opening import BUFFERS, aggregation_spec

__all__ = ["BUFFERS", "aggregation_spec"]
