"""How members speak to a server: its messages, the connection, and the transfer of blobs."""
