"""`python -m hansa` is the same as `hansa`."""

from hansa.cli import main

main()
