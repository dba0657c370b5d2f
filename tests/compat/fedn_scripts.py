"""A federation whose sites are scripts of `FednClient`, each a process as its user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from programs import Started

from hansa.compat.fedn import APIClient
from hansa.dev.loopback import free_port
from hansa.errors import HansaError
from hansa.protocol.messages import RunFacts
from hansa.remote.asking import all_facts, invite
from hansa.remote.connecting import connected, membership_at

RATE = 0.25
SEED = [np.float32([1.5, -2.0]), np.float32([[0.5], [-4.0]])]
ROWS = {"north": (np.array([4.0, -1.0]), 3), "south": (np.array([-8.0, 2.5]), 5)}
"""Where each client pulls to, and its number of examples: signed, and unequal."""

# The shape of FEDn's own example of local compute, with a line where a test breaks it.
SCRIPT = """\
import os
import sys
from io import BytesIO

import numpy as np

from fedn import FednClient
from fedn.network.clients.fedn_client import ConnectToApiResult, GrpcConnectionOptions

NAME, URL, TOKEN = sys.argv[1:4]
TO, EXAMPLES = {to}, {examples}


def load(model):
    with np.load(model) as found:
        return [found[str(i)] for i in range(len(found.files))]


def on_train(model, settings):
    weights = load(model)
    trained = [w + {rate} * (TO.reshape(w.shape) - w) for w in weights]  # float64, as NumPy has it
    metadata = {{"training_metadata": {{"num_examples": EXAMPLES, "rate": {rate}}}}}
    client.log_metric({{"first": 7.0}})
    client.log_metric({{"first": float(trained[0][0])}})
    print("trained", flush=True)
    {line}
    out = BytesIO()
    np.savez_compressed(out, **{{str(i): w for i, w in enumerate(trained)}})
    out.seek(0)
    return out, metadata


def on_validate(model):
    error = sum(float(np.sum((TO.reshape(w.shape) - w) ** 2)) for w in load(model))
    return {{"error": np.float64(error), "note": "of " + NAME}}


def on_predict(model):
    return {{"predicted": load(model)[0] + TO}}


client = FednClient(train_callback=on_train, validate_callback=on_validate)
client.set_predict_callback(on_predict)
client.set_name(NAME)
client.set_client_id("6f2a")
assert client.log_attributes({{"side": NAME}}) and not client.log_metric({{"x": 1}})
config = {{"name": NAME, "client_id": "6f2a", "package": "local", "preferred_combiner": ""}}
result, combiner_config = client.connect_to_api(URL, TOKEN, config)
if result != ConnectToApiResult.Assigned:
    print("Failed to connect to API, exiting.", result, combiner_config, flush=True)
    sys.exit(3)
assert isinstance(combiner_config, GrpcConnectionOptions) and combiner_config.port
assert client.init_grpchandler(config=combiner_config, client_name="6f2a", token=TOKEN)
client.run()
"""


# A client of compute packages, as FEDn's own command line is one.
REMOTE = """\
import sys

from fedn.network.clients.fedn_client import ConnectToApiResult, FednClient

NAME, URL, TOKEN = sys.argv[1:4]
client = FednClient()
client.set_train_callback(lambda *words: 1 / 0)
config = {{"name": NAME, "package": "remote", "data": {data!r}{more}}}
result, combiner_config = client.connect_to_api(URL, TOKEN, config)
assert result == ConnectToApiResult.Assigned, combiner_config
assert not client.init_remote_compute_package(URL, TOKEN, "0" * 64)
assert not client.init_local_compute_package()
assert client.init_remote_compute_package(url=URL, token=TOKEN, package_checksum=None)
assert client.init_grpchandler(config=combiner_config, client_name=NAME, token=TOKEN)
client.run()
"""


def closed_form(rounds: int, rows: dict[str, tuple[np.ndarray, int]] = ROWS) -> list[np.ndarray]:
    """Return FedAvg by its definition: every tensor moves by RATE to the weighted mean."""
    weights = [n for _, n in rows.values()]
    model = [w.astype(float) for w in SEED]
    for _ in range(rounds):
        each = [[w + RATE * (to.reshape(w.shape) - w) for w in model] for to, _ in rows.values()]
        model = [np.average(ws, axis=0, weights=weights) for ws in zip(*each, strict=True)]
    return model


class Scripts(Started):
    """A server, an admin, and scripts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.url = f"https://localhost:{self.port}/"
        self.home = folder / "home"
        self._tokens: dict[str, str] = {}
        os.environ["HANSA_HOME"] = str(self.home)
        words = [
            "init",
            "--folder",
            str(folder / "server"),
            "--name",
            "fedn",
            "--url",
            self.url[:-1],
        ]
        subprocess.run([sys.executable, "-P", "-m", "hansa", "server", *words], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        self.start("server", "-P", "-m", "hansa", "server", "start", "--folder",
                   str(folder / "server"))  # fmt: skip
        self.until(self._answers)
        np.savez(folder / "seed.npz", **{str(i): w for i, w in enumerate(SEED)})
        self.client = APIClient("localhost", self.port)
        self.client.set_active_model(str(folder / "seed.npz"))

    def _answers(self) -> bool:
        try:
            self.facts()
        except HansaError:
            return False
        return True

    def facts(self) -> list[RunFacts]:
        with connected(membership_at(f"localhost:{self.port}")) as connection:
            return all_facts(connection)

    def token(self, name: str) -> str:
        if name not in self._tokens:
            with connected(membership_at(f"localhost:{self.port}")) as connection:
                self._tokens[name] = invite(connection, name)
        return self._tokens[name]

    def script(self, name: str, line: str = "pass", token: str | None = None) -> None:
        """Write and start a client's script; `line` is in its train callback."""
        to, examples = ROWS[name]
        text = SCRIPT.format(to=f"np.array({to.tolist()})", examples=examples, rate=RATE, line=line)
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")
        words = ("-m", "hansa.compat.fedn", f"{name}.py", name, self.url)
        self.start(name, *words, self.token(name) if token is None else token)

    def remote(self, name: str, data: Path, more: str = "") -> None:
        """Write and start a client's script that runs packages, and wait until it takes part."""
        text = REMOTE.format(data=str(data), more=more)
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")
        words = ("-m", "hansa.compat.fedn", f"{name}.py", name, self.url, self.token(name))
        self.start(name, *words)
        self.until(lambda: "takes part" in self.said(name))

    def start(self, key: str, *words: str) -> None:
        environment = {
            **os.environ, "HANSA_SUBMITTERS": "admin", "PYTHONUNBUFFERED": "1",
            # Another machine, as it were: no key of a person is there.
            "HANSA_HOME": str(self.home if key == "server" else self.folder / f"{key}-home"),
        }  # fmt: skip
        with open(self.log(key), "ab") as log:
            self._running[key] = subprocess.Popen(
                [sys.executable, *words], cwd=self.folder, env=environment, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def alive(self, key: str) -> bool:
        return self._running[key].poll() is None

    def until(self, reached: Callable[[], bool], seconds: float = 90.0) -> None:
        until = time.monotonic() + seconds
        while not reached():
            told = {key: self.said(key)[-1500:] for key in self._running}
            assert time.monotonic() < until, told
            time.sleep(0.05)

    def both(self, **lines: str) -> None:
        """Start both scripts, and wait until they take part."""
        for name in ROWS:
            self.script(name, lines.get(name, "pass"))
        for name in ROWS:
            self.until(lambda name=name: "takes part" in self.said(name))  # type: ignore[misc]

    def session(self, name: str, **parameters: object) -> str:
        """Run a session to its end, and return its status."""
        self.client.start_session(name=name, **{"min_clients": 2, **parameters})  # type: ignore[arg-type]
        self.until(lambda: self.client.session_is_finished(name))
        return self.client.get_session_status(name)

    def model(self, id: str) -> list[np.ndarray]:
        path = self.folder / "model.npz"
        self.client.download_model(id, str(path))
        with np.load(path) as found:
            return [found[str(i)] for i in range(len(found.files))]
