"""Processes that run code which is not Hansa's: how they are confined, asked and ended."""
