"""A middle tier: a server to sites of its own, and one participant to the server above it."""
