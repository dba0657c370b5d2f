"""The no-op round by Flower's deployment engine: a SuperLink and SuperNodes, as real processes.

It lives in an environment of its own, as in `benchmarks.peers`.  TLS is of the same kind as
Hansa's: a P-256 certificate of a private authority.  What it does not have: proofs of requests
(`--enable-supernode-auth` is off), and a database on disk (it keeps its state in memory).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bare import certificates, free_port

PROJECT = """
[project]
name = "noop"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr"]
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "noop.server:app"
clientapp = "noop.client:app"
[tool.flwr.app.config]
clients = {clients}
rounds = {rounds}
size = {size}
times = "{times}"
"""
CLIENT = """
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    (w,) = message.content["arrays"].to_numpy_ndarrays()
    w = w + np.float32(0.001)
    metrics = MetricRecord({"loss": 1.0, "num-examples": 8})
    content = RecordDict({"arrays": ArrayRecord([w]), "metrics": metrics})
    return Message(content=content, reply_to=message)
"""
SERVER = """
import json, time
from pathlib import Path
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    times = []

    def aggregate_train(self, server_round, replies):
        found = super().aggregate_train(server_round, replies)
        self.times.append(time.monotonic())
        return found


@app.main()
def main(grid, context):
    c = context.run_config
    averaging = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=c["clients"],
                      min_available_nodes=c["clients"])
    start = ArrayRecord([np.zeros(c["size"], np.float32)])
    result = averaging.start(grid, start, num_rounds=c["rounds"])
    (w,) = result.arrays.to_numpy_ndarrays()
    right = w.shape == (c["size"],) and bool(np.allclose(w, 0.001 * c["rounds"], rtol=1e-3))
    path = Path(c["times"])
    path.with_suffix(".part").write_text(json.dumps({"right": right, "times": Timed.times}))
    path.with_suffix(".part").rename(path)
"""
PATIENCE_S = 240.0


def rounds(
    environment: Path, folder: Path, *, clients: int, rounds: int, size: int
) -> dict[str, Any]:
    """Run no-op rounds and return the milliseconds between their ends, the first two left out.

    Raises:
      RuntimeError: it gave no right model in time; with the last lines of its processes.
    """
    programs = environment.absolute() / "bin"
    times, app = folder / "times.json", _app(folder, clients=clients, rounds=rounds, size=size)
    certificates(folder / "tls")
    port = free_port()
    home = folder / "home"
    home.mkdir()
    authority = folder / "tls" / "ca.pem"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{port}"\n'
        f'root-certificates = "{authority}"\n'
    )
    variables = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "GRPC_VERBOSITY": "ERROR",
    }
    with _processes(folder, programs, variables, port=port, clients=clients):
        done = subprocess.run(
            [programs / "flwr", "run", str(app), "bench"],
            env=variables,
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=60,
        )
        until = time.monotonic() + PATIENCE_S
        while not times.exists():
            if done.returncode or time.monotonic() > until:
                logs = "\n".join(p.read_text()[-1500:] for p in sorted(folder.glob("*.log")))
                raise RuntimeError(f"Flower: {done.stdout}{done.stderr}\n{logs}")
            time.sleep(0.05)
    found = json.loads(times.read_text())
    if not found["right"]:
        raise RuntimeError("Flower's model is wrong")
    gaps = [1e3 * (b - a) for a, b in itertools.pairwise(found["times"])][1:]
    asked = subprocess.run([programs / "pip", "show", "flwr"], capture_output=True, text=True)
    version = re.search(r"Version: (\S+)", asked.stdout)
    return {
        "version": version[1] if version else "?",
        "median_ms": statistics.median(gaps),
        "least_ms": min(gaps),
        "rounds": len(gaps),
    }


def _app(folder: Path, *, clients: int, rounds: int, size: int) -> Path:
    code = folder / "app" / "noop"
    code.mkdir(parents=True)
    times = folder / "times.json"
    text = PROJECT.format(clients=clients, rounds=rounds, size=size, times=times)
    (folder / "app" / "pyproject.toml").write_text(text)
    (code / "__init__.py").write_text("")
    (code / "client.py").write_text(CLIENT)
    (code / "server.py").write_text(SERVER)
    return folder / "app"


@contextlib.contextmanager
def _processes(
    folder: Path, programs: Path, variables: dict[str, str], *, port: int, clients: int
) -> Iterator[None]:
    """Start a SuperLink and its SuperNodes, and end them with all that they have started."""
    tls = folder / "tls"
    link = [programs / "flower-superlink", "--host", "127.0.0.1", "--port", str(port)]
    link += ["--ssl-certfile", tls / "tls.pem", "--ssl-keyfile", tls / "tls-key.pem"]
    link += ["--ssl-ca-certfile", tls / "ca.pem", "--disable-runtime-dependency-installation"]
    commands = [("superlink", link)]
    for n in range(clients):
        node = [programs / "flower-supernode", "--superlink", f"127.0.0.1:{port}"]
        node += ["--root-certificates", tls / "ca.pem", "--port", str(free_port())]
        commands.append((f"supernode-{n}", [*node, "--host", "127.0.0.1"]))
    started = []
    try:
        for name, words in commands:
            log = (folder / f"{name}.log").open("wb")
            started.append(
                subprocess.Popen(
                    [str(w) for w in words],
                    env=variables,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    start_new_session=True,
                )
            )
            time.sleep(3.0)  # its port must be there before others ask for it
        yield
    finally:
        for process in reversed(started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
        time.sleep(1.0)
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
