"""The budgets of the design, measured; `python3 tasks.py bench` prints the table."""
