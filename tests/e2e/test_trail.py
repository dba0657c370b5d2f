"""Goal: the roles and life of models in a real federation, over TLS, from the command line.

Method: a server and three sites as processes; the trail is read by `hansa models --on`, a second
run starts from a model of the first, and the sites of a third are chosen by what they declare.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from federations import FAST, digest, eventually, orphans, project

from hansa.dev import SERVER, Rehearsal
from hansa.site.ledger import LEDGER_FILE, Ledger
from hansa.store.files import load_params

PLAN = """
name = "tiny"
rounds = 4
seed = 7
[learner]
kind = "numpy"
batch_size = "all"
[data]
set = "digits"
split = { scheme = "dirichlet", alpha = 0.5, clients = 3 }
[data.attributes]
client-0 = { region = "eu" }
client-1 = { region = "us", gpu = "yes" }
client-2 = { region = "eu" }
[cohort]
minimum = 2
[keep]
every = 2
"""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    place = tmp_path_factory.mktemp("trail")
    with Rehearsal(place / "r", project(place / "study", PLAN), settings=FAST) as rehearsal:
        yield rehearsal
    assert not orphans(rehearsal)


def said(federation: Rehearsal, *words: str) -> Any:
    done = federation.command(*words, "--on", federation.url, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_run_from_a_model_at_the_server_continues_its_line(federation: Rehearsal) -> None:
    first = federation.run("--set", "rounds=2")
    second = federation.run("--set", "rounds=2", "--from", "tiny-1:2")
    whole = federation.run()
    assert digest(second) == digest(whole) != digest(first)
    models = {m["model"]: m for m in said(federation, "models", "ls")}
    assert models["tiny-2:0"]["parent"] == "tiny-1:2"
    line = [m["model"] for m in said(federation, "models", "ancestors", "tiny-2")]
    assert line == ["tiny-2:1", "tiny-2:0", "tiny-1:2", "tiny-1:1", "tiny-1:0"]
    below = [m["model"] for m in said(federation, "models", "descendants", "tiny-1:1")]
    assert below == ["tiny-1:2", "tiny-2:0", "tiny-2:1", "tiny-2:2"]
    leaves = [m["model"] for m in said(federation, "models", "leaves")]
    assert leaves == ["tiny-2:2", "tiny-3:4"]
    assert [models[f"tiny-3:{n}"]["kept"] for n in range(5)].count("yes") >= 3

    kept, gone = models["tiny-3:2"], models["tiny-3:1"]
    shown = said(federation, "models", "show", "tiny-3:2")
    assert [t["tensor"] for t in shown["tensors"]] == ["layer0.weight", "layer0.bias"]
    target = federation.folder / "two.safetensors"
    said(federation, "export", "tiny-3:2", "-o", str(target))
    assert load_params(target).digest() == kept["digest"] == models["tiny-2:0"]["digest"]
    if gone["kept"] == "no":
        done = federation.command("export", "tiny-3:1", "--on", federation.url)
        assert done.returncode == 1 and "model-missing" in done.stderr


def test_sites_are_chosen_by_what_they_declare_as_in_simulation(federation: Rehearsal) -> None:
    words = ["--set", "rounds=2", "--set", 'cohort.where={region="eu"}']
    folder = federation.run(*words)
    for row in folder.rows():
        assert row["clients"]["asked"] == 2
        for part in ("train", "validation"):
            assert set(row[part]["loss"]["by_client"]) == {"client-0", "client-2"}
    simulated = federation.simulate(sets=["rounds=2", 'cohort.where={region="eu"}'])
    assert digest(folder) == digest(simulated)


def test_the_server_knows_attributes_at_once_and_the_ledger_says_that_they_left(
    federation: Rehearsal,
) -> None:
    settings = federation.site_folder("client-2") / "site.toml"
    text = settings.read_text()
    assert 'region = "eu"' in text
    settings.write_text(text.replace('region = "eu"', 'region = "asia"'))

    def known() -> bool:
        said = {m["name"]: m.get("attributes") for m in federation.members()}
        return said.get("client-2") == {"region": "asia"}

    eventually(known, 30.0, "the server has not heard of it")
    server = str(federation.folder / SERVER)
    listed = federation.command("server", "sites", "--folder", server)
    assert "region=asia" in listed.stdout, listed.stdout + listed.stderr
    ledger = Ledger(federation.site_folder("client-2") / LEDGER_FILE)
    told = [e.detail for e in ledger.entries() if e.detail.startswith("attributes")]
    assert told == ["attributes: region = eu", "attributes: region = asia"]


def test_a_run_that_no_site_fits_waits_and_says_why(federation: Rehearsal) -> None:
    folder = federation.submit(sets=['cohort.where={region="mars"}'])
    run = (folder.remote or {})["run"]

    def waits() -> bool:
        return "do not fit cohort.where" in said(federation, "show", run)["reason"]

    eventually(waits, 30.0, "it does not say why it waits")
    assert federation.command("stop", run, "--on", federation.url).returncode == 0
