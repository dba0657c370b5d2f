"""Placeholder; its owner writes this line."""
