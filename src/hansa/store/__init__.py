"""Files that survive a crash, blobs known by their digest, and the database of a server."""

from hansa.store.addresses import digest_of, digest_of_file
from hansa.store.blobs import BlobStore
from hansa.store.files import load_params, save_params, write_durably

__all__ = [
    "BlobStore",
    "digest_of",
    "digest_of_file",
    "load_params",
    "save_params",
    "write_durably",
]
