"""Commands that ask a server load what asking takes, and no more."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["hansa.cli.ls", "hansa.cli.server_members", "hansa.cli.console", "hansa.remote.connecting",
     "hansa.remote.asking", "hansa.runs.result", "hansa.remote.words"],
)  # fmt: skip
def test_what_looks_at_a_server_loads_no_arrays_database_or_certificates(module: str) -> None:
    heavy = "{'numpy', 'sqlalchemy', 'starlette', 'granian', 'cryptography.x509', 'filelock'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
