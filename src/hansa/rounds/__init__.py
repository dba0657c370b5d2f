"""What a round is, apart from who performs it."""

from hansa.rounds.opening import BUFFERS, aggregation_spec, largest_parameter
from hansa.rounds.round import Terms

__all__ = ["BUFFERS", "Terms", "aggregation_spec", "largest_parameter"]
