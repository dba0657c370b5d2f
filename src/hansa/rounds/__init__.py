"""What a round is, apart from who performs it."""

from hansa.rounds.opening import BUFFERS, aggregation_spec, largest_parameter

__all__ = ["BUFFERS", "aggregation_spec", "largest_parameter"]
