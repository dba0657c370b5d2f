"""Thin adapters for projects of other systems; nothing else in Hansa imports them.

A generated `model.py` does, and the commands that write it.
"""
