"""How members speak to a server: its messages, the connection, and the transfer of blobs."""

from hansa.protocol.connection import Answer, Connection, read_authority
from hansa.protocol.patience import is_passing, with_patience
from hansa.protocol.transfer import Known, download, upload

__all__ = [
    "Answer",
    "Connection",
    "Known",
    "download",
    "is_passing",
    "read_authority",
    "upload",
    "with_patience",
]
