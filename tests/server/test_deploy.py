"""The files in deploy/ are what they say: they name commands that exist, and nginx serves (T5)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from served import HANSA, Federation, connected

from hansa.cli.main import cli
from hansa.dev.loopback import free_port
from hansa.limits import CHUNK_BYTES
from hansa.protocol.transfer import download, upload

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

POLICY = """\
name = "north"
[data.digits]
path = "../parts/client-0"
[policy]
submitters = ["admin"]
approve = "submitters"
sandbox = "preferred"
"""


def command_of(words: list[str]) -> click.Context:
    """Return the command that words call, with its options checked."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    return command.make_context("hansa", words)


def unit(name: str) -> list[tuple[str, str]]:
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and line[0] not in "#["]
    return [(key, value) for key, _, value in (line.partition("=") for line in kept)]


@pytest.mark.parametrize("name", ["hansa-server.service", "hansa-site.service"])
def test_a_unit_starts_a_command_that_exists_with_variables_that_are_read(name, monkeypatch):
    settings = unit(name)
    for key, value in settings:
        if key == "Environment":
            monkeypatch.setenv(*value.split("=", 1))
    (start,) = [value for key, value in settings if key == "ExecStart"]
    words = shlex.split(start)
    assert words[0].endswith("/hansa")
    folder = command_of(words[1:]).params["folder"]
    written = [value for key, value in settings if key == "ReadWritePaths"]
    assert str(folder).startswith(written[0])
    assert ("Restart", "always") in settings


def test_the_container_runs_a_command_that_exists_and_not_as_root(monkeypatch):
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    (words,) = re.findall(r"^CMD (\[.+\])$", text, re.MULTILINE)
    for key, value in re.findall(r"(HANSA_\w+)=(\S+)", text):
        monkeypatch.setenv(key, value)
    assert str(command_of(json.loads(words)).params["folder"]).startswith("/data")
    assert re.search(r"^USER (?!root)\w+$", text, re.MULTILINE)


def nginx_settings(folder: Path, server_port: int, port: int) -> Path:
    """Return our nginx.conf with this machine's ports, names and folders in place of the shown."""
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for shown, real in {
        "server 127.0.0.1:8443;": f"server 127.0.0.1:{server_port};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server_name HANSA.EXAMPLE.ORG;": "server_name localhost;",
        "/etc/nginx/hansa/": f"{folder}/",
    }.items():
        assert shown in text
        text = text.replace(shown, real)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    text = text.replace("http {\n", f"http {{\n{paths}", 1)
    text += f"pid {folder}/nginx.pid;\ndaemon off;\nerror_log stderr;\n"
    text += "" if os.getuid() else "user root;\n"
    path = folder / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return path


@contextlib.contextmanager
def running(words: list[str], *, environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("w") as file:
        process = subprocess.Popen(words, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")
def test_a_site_joins_and_works_through_nginx(tmp_path):
    """T5: enrolment, long polls, three rounds, and a blob in chunks, through our own nginx.conf."""
    assert NGINX is not None
    port = free_port()
    federation = Federation(tmp_path, tls=False, url=f"https://localhost:{port}")
    hansa, site = federation.hansa, tmp_path / "north"
    proxy = tmp_path / "nginx"
    proxy.mkdir()
    hansa("server", "certificate", "localhost", "--to", proxy)
    conf = nginx_settings(proxy, federation.port, port)
    subprocess.run([NGINX, "-t", "-q", "-c", conf], check=True, capture_output=True)
    environment = federation.environment
    with (
        running([NGINX, "-c", str(conf)], environment=environment, log=tmp_path / "nginx.log"),
        federation.served(),
    ):
        line = federation.invite("north")
        hansa("site", "join", line, "--yes", "--folder", site, folder=False)
        words = ("split", "digits", "--scheme", "iid", "--clients", 2, "-o", tmp_path / "parts")
        hansa(*words, folder=False)
        (site / "site.toml").write_text(POLICY, encoding="utf-8")
        agent = [*HANSA, "site", "start", "--folder", str(site)]
        with running(agent, environment=environment, log=tmp_path / "site.log"):
            hansa("init", tmp_path / "study", folder=False)
            told = hansa("run", tmp_path / "study", "--on", federation.url, "--rounds", 3,
                         "--set", "cohort.minimum=1", "--runs", tmp_path / "runs",
                         folder=False)  # fmt: skip
            sites = json.loads(federation.command("server", "sites", "--json").stdout)
        content = os.urandom(2 * CHUNK_BYTES + 1)
        with connected(federation.admin) as connection:
            large = upload(connection, content, to="blobs")
            download(connection, large, tmp_path / "large")
        assert (tmp_path / "large").read_bytes() == content
    assert "Finished: all 3 rounds are done" in told
    assert [(s["name"], s["state"]) for s in sites["sites"]] == [("north", "active")]


def test_behind_a_proxy_the_rate_of_each_client_is_its_own(tmp_path):
    """One noisy address must not use up what the others may ask."""
    federation = Federation(tmp_path, tls=False, url="https://hansa.example")
    with federation.served():
        noisy = {"X-Real-IP": "198.51.100.1"}
        answers = [federation.ask_plainly("/v1/authority", noisy)[0] for _ in range(130)]
        assert answers[0] == 200 and 429 in answers
        assert federation.ask_plainly("/v1/authority", {"X-Real-IP": "198.51.100.2"})[0] == 200
        assert federation.ask_plainly("/v1/authority", {"X-Real-IP": "nobody"})[0] == 200
