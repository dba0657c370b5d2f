"""The admin console: the verbs of NVIDIA FLARE's, old and new, on a Hansa federation.

    verbs.py      the table of verbs; help, completion, reference and tests come from it
    parsing.py    a line -> a command
    progress.py   events of a run -> where it stands, and who is silent
    answers.py    facts -> text
    workspace.py  what the console remembers: apps, run numbers, their runs
    session.py    a command -> what is done, and its answer

The first four know no files, sockets or clocks.
"""
