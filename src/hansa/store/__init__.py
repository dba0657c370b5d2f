"""Files that survive a crash, blobs known by their digest, and the database of a server."""
