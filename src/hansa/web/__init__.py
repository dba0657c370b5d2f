"""Pages and charts that one person can read without a server: one file, no script, no network.

`charts` draws, `report` writes the page of a run and the page that compares runs.
"""
