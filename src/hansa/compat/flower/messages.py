"""What goes to a Flower client and comes back: a message, and the context it is handled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hansa.clock import wall
from hansa.compat.flower.records import RecordDict

DEFAULT_TTL = 43_200
"""Seconds that Flower lets a message live; Hansa's rounds have a deadline of their own."""


class MessageType:
    """What a message asks for."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    QUERY = "query"


@dataclass
class Error:
    """What a client says of its failure in place of an answer."""

    code: int
    reason: str | None = None


@dataclass
class Metadata:
    """Who sends a message to whom, about what."""

    run_id: int = 1
    message_id: str = ""
    src_node_id: int = 0
    dst_node_id: int = 0
    reply_to_message_id: str = ""
    group_id: str = ""
    created_at: float = field(default_factory=wall)
    ttl: float = DEFAULT_TTL
    message_type: str = MessageType.TRAIN


class Message:
    """A message: records or an error, and metadata.

    Args:
      content: records; the first argument may also be an `Error`.
      dst_node_id: whom it is for.
      message_type: "train", "evaluate" or "query", perhaps with ".action".
      error: in place of content.
      reply_to: the message that this one answers; its metadata are turned round.
      ttl: seconds, kept but not acted on.
      group_id: kept; the round, in text.
      metadata: all of it, as older code gives it.
    """

    def __init__(
        self,
        content: Any = None,
        dst_node_id: int | None = None,
        message_type: str | None = None,
        *,
        error: Error | None = None,
        reply_to: Message | None = None,
        ttl: float | None = None,
        group_id: str | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        if isinstance(content, Metadata):  # Message(metadata, content), before 1.18
            metadata, content = content, dst_node_id
        if isinstance(content, Error):
            content, error = None, content
        if content is not None and not isinstance(content, RecordDict):
            raise TypeError(f"A message carries a RecordDict, not {type(content).__name__}.")
        self._content, self._error = content, error
        if metadata is None and reply_to is not None:
            of = reply_to.metadata
            metadata = Metadata(
                of.run_id,
                src_node_id=of.dst_node_id,
                dst_node_id=of.src_node_id,
                reply_to_message_id=of.message_id,
                group_id=of.group_id,
                message_type=of.message_type,
            )
        self.metadata: Metadata = metadata or Metadata(
            dst_node_id=dst_node_id or 0,
            message_type=message_type or MessageType.TRAIN,
            group_id=group_id or "",
        )
        if ttl is not None:
            self.metadata.ttl = ttl

    @property
    def content(self) -> RecordDict:
        """The records."""
        if self._content is None:
            raise ValueError("The message has no content; ask has_content() first.")
        return self._content

    @content.setter
    def content(self, value: RecordDict) -> None:
        self._content = value

    @property
    def error(self) -> Error:
        """The error."""
        if self._error is None:
            raise ValueError("The message has no error; ask has_error() first.")
        return self._error

    def has_content(self) -> bool:
        """Return whether there are records."""
        return self._content is not None

    def has_error(self) -> bool:
        """Return whether there is an error."""
        return self._error is not None

    def create_reply(self, content: RecordDict, ttl: float | None = None) -> Message:
        """Return an answer to this message."""
        return Message(content, reply_to=self, ttl=ttl)

    def create_error_reply(self, error: Error, ttl: float | None = None) -> Message:
        """Return an answer to this message that says what failed."""
        return Message(error, reply_to=self, ttl=ttl)


@dataclass
class Context:
    """What a client knows beside the message, and what it keeps between messages."""

    run_id: int = 1
    node_id: int = 0
    node_config: dict[str, Any] = field(default_factory=dict)
    state: RecordDict = field(default_factory=RecordDict)
    run_config: dict[str, Any] = field(default_factory=dict)
    series_id: int = 0
