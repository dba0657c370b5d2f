"""A whole federation on this machine: a server and sites as real processes, over TLS on loopback.

    with Rehearsal(folder, project, sites=3) as rehearsal:
        run = rehearsal.run()
        assert run.commits()[-1]["model"] == rehearsal.simulate().commits()[-1]["model"]

Sites have the names and the rows of the project's simulated clients, so both give the same model.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from hansa.clock import monotonic
from hansa.combiner.state import found_combiner
from hansa.data.schemes import Files, Natural
from hansa.dev.children import Child, stop_all
from hansa.dev.combiners import Combiners
from hansa.dev.loopback import ADMIN, SERVER, environment_with, free_port
from hansa.errors import HansaError, ServerError
from hansa.identity import Membership, load_membership, parse_invite
from hansa.params import encode
from hansa.plan import PLAN_FILE
from hansa.plan.load import with_clients
from hansa.project import Project, open_project
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import connection_of, enrol
from hansa.remote import asking
from hansa.remote.connecting import connected
from hansa.remote.follow import follow
from hansa.remote.seed import seed_model
from hansa.remote.submit import submit
from hansa.runs import RunFolder, find_run
from hansa.runs.start import Start
from hansa.server.founding import found
from hansa.server.settings import ServerSettings
from hansa.simulation import (
    Population,
    Simulation,
    Unwatched,
    continue_run,
    open_run,
    project_population,
)
from hansa.simulation.population import Placed, write_client_rows
from hansa.site.policy import Policy
from hansa.site.settings import DataSource, SiteLimits, SiteSettings, write_settings
from hansa.store.files import load_params, write_durably
from hansa.testing.proxy import FaultProxy
from hansa.text import few

_START_S = 30.0
_LOOK_S = 0.02
_DATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NO_DATA = (PLAN_FILE, "runs")


class Rehearsal:
    """A federation of real processes on this machine; a context manager that leaves none behind.

    Args:
      folder: gets everything: server/, sites/NAME/, home/, runs/, logs/; must not hold another.
      project: folder of a project.
      sites: names of the simulated clients that become sites, or how many there are; by default
        all that the plan has.
      sets: changes of the plan, KEY=VALUE.
      settings: of the server, beside its address; see `ServerSettings`.
      limits: of every site.
      sandbox: of every site's policy.
      proxied: put a `FaultProxy` before every site; see `proxies`.
      combiners: so many stand between the server and the sites, which are dealt out in turn; or
        the sites behind each, by its name: all others join the server itself.
      told: is called with one line for each step.
    """

    def __init__(
        self,
        folder: Path,
        project: Path,
        *,
        sites: Sequence[str] | int | None = None,
        sets: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        limits: SiteLimits | None = None,
        sandbox: str = "preferred",
        proxied: bool = False,
        combiners: int | Mapping[str, Sequence[str]] = 0,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder, self.project_folder = folder.resolve(), project.resolve()
        opened = open_project(project, sets)
        self.sets = [*sets, *_as_many(opened, sites)]
        self.project: Project = open_project(project, self.sets)
        self.population: Population = project_population(self.project)
        names = list(sites) if isinstance(sites, Sequence) else list(self.population.names)
        self.names = [str(name) for name in names]
        self.proxied, self._told = proxied, told
        self._limits, self._sandbox = limits or SiteLimits(), sandbox
        self.combiners = Combiners.of(combiners, self.names)
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.settings = ServerSettings(
            **{"name": "rehearsal", "server_functions": "preferred", **(settings or {})},
            url=self.url,
            host="127.0.0.1",
            port=self.port,
        )
        self.proxies: dict[str, FaultProxy] = {}
        self.children: dict[str, Child] = {}
        self._connection: Connection | None = None
        self._lock = threading.RLock()

    # ---- from beginning to end

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def begin(self) -> None:
        """Make the server and the sites, start them all, and wait until they are there."""
        if (self.folder / SERVER).exists():
            raise ServerError(
                "server-exists",
                f"{self.folder} holds a rehearsal already. Nothing was started.",
                "Remove that folder, or choose another.",
            )
        for name in ("home", "sites", "logs", "runs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        with environment_with(self.environment):
            found(self.folder / SERVER, self.settings, admin=ADMIN)
        words = ["server", "start", "--folder", str(self.folder / SERVER)]
        self._child(SERVER, words)
        self.start(SERVER)
        self._told(f"server at {self.url}")
        for name in self.combiners.names:
            self._begin_combiner(name)
        for name in self.names:
            self._join(name)
            self.children[name].start()
        self.wait_for(*self.names)
        self._told(f"{len(self.names)} sites: {few(self.names, 8)}")

    def close(self) -> None:
        """End every process, proxy and connection; the folder stays."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with self._lock:
            tier = {SERVER, *self.combiners.names}
            stop_all([c for n, c in self.children.items() if n not in tier])
            stop_all([self.children[n] for n in self.combiners.names if n in self.children])
            stop_all([c for n, c in self.children.items() if n == SERVER])
        for proxy in self.proxies.values():
            proxy.close()

    # ---- its processes

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which every process and command of the rehearsal runs."""
        return {"HANSA_HOME": str(self.folder / "home")}

    def start(self, who: str, *, failpoint: str = "", wait: bool = True) -> float:
        """Start the server or a site again; return the seconds until the server answered.

        Args:
          who: "server", or a site's name.
          failpoint: arms one, as `HANSA_FAILPOINT`.
          wait: for the server's port.

        Raises:
          ServerError: dev-process, it ended at once.
        """
        began = monotonic()
        child = self.children[who]
        child.start(failpoint=failpoint)
        port = self.port if who == SERVER else self.combiners.ports.get(who)
        if port is not None and wait:
            self._until(lambda: _answers(port), f"{who} did not open its port", [child])
        return monotonic() - began

    def kill(self, who: str) -> None:
        """Kill -9 the server or a site."""
        self.children[who].kill()

    def stop(self, who: str) -> int | None:
        """End the server or a site in an orderly way; return its status."""
        return self.children[who].stop()

    def add_site(self, name: str) -> None:
        """Let another site join, start it, and wait until the server has heard of it.

        Args:
          name: of a client of the population; a site of another name gets the first one's rows.
        """
        self._join(name)
        self.names.append(name)
        self.children[name].start()
        self.wait_for(name)

    def wait_for(self, *names: str, state: str = "active", seconds: float = _START_S) -> None:
        """Wait until the server regards some sites as active, or silent.

        Raises:
          ServerError: dev-process, one of them has ended, or it takes too long.
        """

        def there() -> bool:
            known = {m["name"]: m["state"] for m in self.members()}
            return all(known.get(name) == state for name in names)

        children = [self.children[n] for n in (SERVER, *names)] if state == "active" else []
        self._until(there, f"{', '.join(names)}: not {state} at the server", children, seconds)

    def combiner_folder(self, name: str) -> Path:
        """Return a combiner's folder."""
        return self.folder / "combiners" / name

    def site_folder(self, name: str) -> Path:
        """Return a site's folder."""
        return self.folder / "sites" / name

    # ---- what one asks it

    @property
    def membership(self) -> Membership:
        """The admin's."""
        return load_membership(self.folder / "home" / "federations" / f"localhost-{self.port}")

    @property
    def connection(self) -> Connection:
        """A connection in the admin's name, past all proxies."""
        if self._connection is None:
            self._connection = connection_of(self.membership, url=self.url)
        return self._connection

    def members(self) -> list[dict[str, Any]]:
        """Return what the server knows of its members."""
        return asking.members(self.connection)

    # ---- runs

    @property
    def runs(self) -> Path:
        """Folder of the runs at the server, as they are followed here."""
        return self.folder / "runs"

    def run_words(self, *words: str) -> list[str]:
        """Return the words after `hansa` that run the project at this federation."""
        sets = [word for text in self.deployed_sets() for word in ("--set", text)]
        seed = self.seed_file()
        model = [] if seed is None else ["--from", str(seed)]
        place = ["--on", self.url, "--runs", str(self.runs)]
        return ["run", str(self.project_folder), *place, *sets, *model, *words]

    def command(self, *words: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run `hansa WORDS` in this rehearsal's environment and return what came of it."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "hansa", *words],
            env={**os.environ, **self.environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def run(self, *words: str, timeout_s: float = 120.0) -> RunFolder:
        """Run the project to its end with `hansa run --on`, and return the run's folder here.

        Args:
          words: further options of `hansa run`.
          timeout_s: seconds that it may take.

        Raises:
          ServerError: dev-process, the command failed; with what it printed.
        """
        done = self.command(*self.run_words("--new", *words), timeout_s=timeout_s)
        if done.returncode:
            raise ServerError(
                "dev-process",
                f"hansa run ended with status {done.returncode}:\n{done.stdout}{done.stderr}",
                f"The processes' logs are in {self.folder / 'logs'}",
            )
        return find_run(self.runs, None)

    def submit(self, *, new: bool = True, sets: Sequence[str] = ()) -> RunFolder:
        """Submit the project from this process and return the run's folder.

        Args:
          new: start anew although an unfinished run is there; False repeats what was broken off.
          sets: further changes of the plan.

        Raises:
          HansaError: as `hansa.remote.submit`.
        """
        project = open_project(self.project_folder, [*self.deployed_sets(), *sets])
        start = self.start_model()
        return submit(project, self.membership, runs=self.runs, start=start, new=new)

    def follow(self, folder: RunFolder, *, seconds: float = 60.0) -> str:
        """Follow a run to its end from this process; return how it ended.

        Raises:
          ServerError: dev-process, it takes longer.
          HansaError: as `hansa.remote.follow`.
        """
        trouble: list[BaseException] = []

        def work() -> None:
            try:
                with connected(self.membership) as connection:
                    follow(folder, connection, membership=self.membership, view=Silent())
            except HansaError as error:
                trouble.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(seconds)
        if trouble:
            raise trouble[0]
        if thread.is_alive():
            last = [f"{e['kind']} {e.get('reason', '')}" for e in folder.log.events[-5:]]
            raise self.children[SERVER].trouble(f"has not ended {folder.name}: {last}")
        return folder.state

    def simulate(self, *, sets: Sequence[str] = ()) -> RunFolder:
        """Simulate the same plan with the same clients and return the run's folder.

        Args:
          sets: further changes of the plan, not of its data.
        """
        simulation = Simulation(runs=self.folder / "simulated", new=True)
        project = open_project(self.project_folder, [*self.sets, *sets])
        folder, population = open_run(project, simulation, self.population)
        continue_run(folder, project, population, simulation=simulation)
        return folder

    def deployed_sets(self) -> list[str]:
        """Return the changes of the plan as it is submitted: its data by a name of the sites."""
        given, name = self.project.plan.data.set, self.data_name
        return [*self.sets, f'data.set="{name}"'] if name != given and name else list(self.sets)

    def deployed(self) -> Project:
        """Return the project as it is submitted."""
        return open_project(self.project_folder, self.deployed_sets())

    def seed_file(self) -> Path | None:
        """Return a file with the seed model, if it cannot be made from the submitted plan.

        That is so where the plan's data are a path here and a name at the sites.
        """
        if self.data_name == self.project.plan.data.set:
            return None
        path = self.folder / "seed.safetensors"
        if not path.exists():
            write_durably(path, encode(seed_model(self.project).params))
        return path

    def start_model(self) -> Start | None:
        """Return that seed model; None where it is the project's own."""
        path = self.seed_file()
        return None if path is None else Start(load_params(path).copy(), "")

    @property
    def data_name(self) -> str | None:
        """The name under which sites declare their data; None where the project's code has it."""
        given = self.project.plan.data.set
        if given is None or _DATA_NAME.fullmatch(given):
            return given
        return re.sub(r"[^A-Za-z0-9-]+", "-", Path(given).stem).strip("-") or "data"

    # ---- inside

    def _child(self, name: str, words: Sequence[str]) -> None:
        log = self.folder / "logs" / f"{name}.log"
        self.children[name] = Child(name, words, log=log, environment=self.environment)

    def _begin_combiner(self, name: str) -> None:
        """Make a combiner: invited, joined, with a server of its own; and start it."""
        line = asking.invite(self.connection, name, role="combiner")
        port = self.combiners.ports[name] = free_port()
        settings = msgspec.structs.replace(
            self.settings, name=name, url=f"https://localhost:{port}", port=port
        )
        folder = self.combiner_folder(name)
        with environment_with(self.environment):
            found_combiner(folder, parse_invite(line), settings, admin=ADMIN)
        self._child(name, ["combiner", "start", "--folder", str(folder)])
        self.start(name)
        self._told(f"combiner {name} at {settings.url}")

    @contextmanager
    def _asking(self, combiner: str | None) -> Iterator[Connection]:
        """Give a connection in the admin's name to the server, or to a combiner."""
        if combiner is None:
            yield self.connection
            return
        place = f"localhost-{self.combiners.ports[combiner]}"
        with connected(load_membership(self.folder / "home" / "federations" / place)) as opened:
            yield opened

    def _join(self, name: str) -> None:
        """Make a site: invited, joined, with its data and a policy."""
        above = self.combiners.above(name)
        with self._asking(above) as connection:
            invite = parse_invite(asking.invite(connection, name))
        folder = self.site_folder(name)
        if self.proxied:
            port = self.port if above is None else self.combiners.ports[above]
            proxy = self.proxies[name] = FaultProxy(port)
            proxy.start()
            invite = invite._replace(url=f"https://localhost:{proxy.port}")
        enrol(invite, folder)
        settings = SiteSettings(
            name=name,
            attributes=self.project.plan.data.attributes.get(name, {}),
            data=self._data(name, folder),
            policy=msgspec.convert(
                {"submitters": [ADMIN], "approve": "submitters", "sandbox": self._sandbox}, Policy
            ),
            limits=self._limits,
            resources=dict(self.project.plan.resources),  # a rehearsal is of one run
        )
        write_settings(folder, settings)
        self._child(name, ["site", "start", "--folder", str(folder)])

    def _data(self, name: str, folder: Path) -> dict[str, DataSource]:
        declared = self.data_name
        rows = name if name in self.population.names else str(self.population.names[0])
        if declared is not None and isinstance(self.population, Placed):
            return {declared: DataSource(path=str(self.population.place(rows)))}
        if declared is None:
            return self._lying_beside()
        if not write_client_rows(self.population, rows, folder / "data"):
            return {}
        return {declared: DataSource(path=str(folder / "data"))}

    def _lying_beside(self) -> dict[str, DataSource]:
        """Return what lies beside the project's code, which reads its files itself.

        A site owner declares such data; so each site's current folder has what the project's has.
        """
        return {
            path.name: DataSource(path=str(path.resolve()))
            for path in sorted(self.project_folder.iterdir())
            if _DATA_NAME.fullmatch(path.name)
            and path.name not in _NO_DATA
            and path.suffix != ".py"
            and not self.folder.is_relative_to(path.resolve())
        }

    def _until(
        self,
        reached: Callable[[], bool],
        what: str,
        children: Sequence[Child],
        seconds: float = _START_S,
    ) -> None:
        until = monotonic() + seconds
        pause = threading.Event()
        while True:
            for child in children:
                child.check()
            try:
                if reached():
                    return
            except HansaError:
                if monotonic() > until:
                    raise
            if monotonic() > until:
                raise (children or [self.children[SERVER]])[-1].trouble(f"({what})")
            pause.wait(_LOOK_S)


class Silent(Unwatched):
    """Watches a run and says nothing."""

    def told(self, text: str) -> None:
        """Say nothing."""


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _as_many(project: Project, sites: Sequence[str] | int | None) -> list[str]:
    """Return the changes of the plan that make as many simulated clients as there are sites."""
    data = project.plan.data
    own = isinstance(data.split, Files | Natural) or project.plan.learner.rows == "path"
    if not isinstance(sites, int) or own:
        return []
    clients = with_clients(data, sites)
    fewer = [f"cohort.minimum={sites}"] if project.plan.cohort.minimum > sites else []
    return [clients, *fewer]


__all__ = ["ADMIN", "SERVER", "Rehearsal", "free_port"]
