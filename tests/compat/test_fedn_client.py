"""A site that is started as FEDn starts a client: its configuration, its container, its options."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hansa.compat.fedn import client
from hansa.errors import HansaError, IdentityError, PlanError, SiteError
from hansa.hosting.sandbox import environment
from hansa.identity import Invite

SECRET = f"{'t' * 22}.{'0' * 32}"
CONTAINER = Path(__file__).resolve().parents[2] / "deploy" / "Containerfile.client"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        f'token: "https://h.example:8443#{SECRET}"',
        f"api_url: https://h.example:8443/\ntoken: {SECRET}",
        f"discover_host: h.example\ndiscover_port: 8443\ntoken: {SECRET}",
        f"network_id: x\napi_url: h.example\napi_port: 8443\ntoken: {SECRET}  # a secret",
    ],
)
def test_every_form_of_a_configuration_is_one_invitation(tmp_path: Path, text: str) -> None:
    said = client.read_config(write(tmp_path / "client.yaml", text))
    assert client.invitation(said) == Invite("https://h.example:8443", "t" * 22, "0" * 32)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("tokn: x", SiteError, "the key 'tokn'"),
        ("- a", SiteError, "holds no keys"),
        ("token: &x y", PlanError, "begins a value with &"),
        ("name: a", IdentityError, "not an invitation"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_with_a_sentence(
    tmp_path: Path, text: str, kind: type[HansaError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        client.invitation(client.read_config(write(tmp_path / "client.yaml", text)))
    with pytest.raises(SiteError, match="cannot be read"):
        client.read_config(tmp_path / "nowhere.yaml")


def test_a_mistake_ends_the_program_with_its_sentence(tmp_path: Path) -> None:
    words = [sys.executable, "-P", "-m", "hansa.compat.fedn.client", "run", "client"]
    done = subprocess.run(
        [*words, "-in", "client.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("Error: client.yaml cannot be read")
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        ("data", "--data_path=data/mnist.pt", "--data_path={data}/mnist.pt"),
        ("data", "--data data --x=./data '--y=data'", "--data {data} --x={data} '--y={data}'"),
        ("data", "--data_path=/mnt/data/a.data", "--data_path=/mnt/data/a.data"),
        ("/var/data", "--a=/var/data2 --b=/var/data", "--a=/var/data2 --b={data}"),
        ("/var/data/", "--a=/var/data/x --b /var/data", "--a={data}/x --b {data}"),
        ("/var/data", "--a=/srv/var/data", "--a=/srv/var/data"),
        (".", "--lr=0.5 --a=./x.pt --b=. --c=..", "--lr=0.5 --a={data}/x.pt --b={data} --c=.."),
    ],
)
def test_a_path_in_options_is_replaced_as_a_whole(data: str, options: str, told: str) -> None:
    """--data_path became --{data}_path, and each dot of a number the data."""
    assert client.with_place(options, data) == told


def test_options_may_name_the_data_by_their_full_path() -> None:
    assert client.with_place(f"--a={Path('rows').resolve()}/x", "rows") == "--a={data}/x"


def test_nothing_runs_at_a_client_whose_configuration_names_nobody() -> None:
    assert client._policy({"token": "x"}) is None
    policy = client._policy({"submitters": "ada"})
    assert policy is not None and policy.submitters == ("ada",) and policy.sandbox == "preferred"
    with pytest.raises(SiteError, match="cannot be used"):
        client._policy({"submitters": ["ada"], "sandbox": "maybe"})


def test_the_agent_gets_the_options_with_a_place_for_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "site.toml", 'name = "one"\n')  # joined before
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    monkeypatch.setenv("ENTRYPOINT_OPTS", "--data_path=/var/data/mnist.pt")
    client.main(["client", "start", "--init", "no.yaml", "--folder", str(tmp_path)])
    assert started[0][1:] == ["-P", "-m", "hansa", "site", "start", "--folder", str(tmp_path)]
    assert environment()["ENTRYPOINT_OPTS"] == "--data_path={data}/mnist.pt"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert "AWS_SECRET_ACCESS_KEY" not in environment()


def test_other_words_than_those_of_a_client_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        client.main(["run", "combiner"])
    assert "'run combiner' is not known here" in capsys.readouterr().err


def test_the_container_starts_this_program_with_words_that_it_takes() -> None:
    text = CONTAINER.read_text(encoding="utf-8")
    first = json.loads(re.findall(r"^ENTRYPOINT (\[.+\])$", text, re.M)[0])
    assert first[:3] == ["python", "-P", "-m"] and importlib.util.find_spec(first[3]) is not None
    default = json.loads(re.findall(r"^CMD (\[.+\])$", text, re.M)[0])
    told = ["run", "client", "-in", "client.yaml", "--name", "client1"]
    assert " ".join(told) in text.replace("\\\n#", "")
    for words in (default, told):
        asked = client._parser().parse_args(words)
        assert asked.config == Path("client.yaml") and asked.data == Path("/var/data")
    assert re.search(r"^WORKDIR /app$", text, re.M) and re.search(r"^VOLUME /data$", text, re.M)
    assert re.findall(r"HANSA_SITE=(\S+)", text)[0].startswith("/data/")
    assert re.search(r"^USER (?!root)\w+$", text, re.M)
