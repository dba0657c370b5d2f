"""The pages as files: self-contained, small, safe, well formed and reachable."""

import re
from html.parser import HTMLParser

import pytest
import sample_runs as samples

from hansa.errors import RunError
from hansa.web.report import RunRecord, render_compare, render_report

PAGES = {name: render_report(make()) for name, make in samples.REPORTS.items()}
PAGES["compare"] = render_compare(samples.seeds_and_settings())
PAGES["compare hostile"] = render_compare([samples.hostile(), samples.hello(), samples.empty()])
PAGES["compare nothing"] = render_compare([])


def test_a_run_of_sites_is_not_said_to_be_reproduced_here():
    run = samples.hello()
    assert "hansa reproduce" in render_report(run)
    assert "hansa reproduce" not in render_report({**run, "engine": "federation"})


def test_a_run_that_has_ended_without_a_round_promises_none():
    started = {**samples.empty(), "final": False}
    assert "appear with the first finished round" in render_report(started)
    text = render_report({**started, "final": True, "state": "failed"})
    assert "first finished round" not in text and "Nothing was measured." in text


VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects elements, checks that they close in order, and keeps the visible text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(params=PAGES)
def page(request):
    return PAGES[request.param]


def test_a_page_is_well_formed_and_in_one_file(page):
    found = Page(page)
    assert not {tag for tag, _ in found.elements} & {"script", "img", "iframe", "object", "form"}
    assert all(a["href"].startswith(("#", "data:")) for t in ("a", "link") for a in found.all(t))
    assert not re.search(r"url\(|@import|@font-face", page)
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]
    policy = {"http-equiv": "Content-Security-Policy"}
    (rules,) = [a["content"] for a in found.all("meta") if policy.items() <= a.items()]
    assert rules.startswith("default-src 'none'")
    page.encode("utf-8")


def test_a_page_can_be_walked_by_keyboard_and_by_ear(page):
    found = Page(page)
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("h1")) == 1 and found.all("main") == [{"id": "main"}]
    targets = {attrs["id"] for _, attrs in found.elements if "id" in attrs}
    assert {a["href"][1:] for a in found.all("a")} <= targets
    charts = [attrs for attrs in found.all("svg") if attrs.get("class") == "hc"]
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    assert all("scope" in attrs for attrs in found.all("th"))
    regions = [attrs for attrs in found.all("div") if attrs.get("class") == "scroll"]
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in regions)


def test_hostile_text_is_shown_and_never_obeyed():
    for name in ("hostile", "compare hostile"):
        page, found = PAGES[name], Page(PAGES[name])
        assert "<script" not in page and "<img" not in page and "</style></svg>" not in page
        assert "\u202e" not in page and "\x00" not in page and "\x1b" not in page
        assert "A" * 500 not in page
        assert "<script>alert(1)</script>" in found.text
    assert "\"'\\u202egnp.exe failed after 3 rounds" in Page(PAGES["hostile"]).text
    assert len(PAGES["hostile"]) < 60_000


def test_a_hundred_rounds_of_a_hundred_clients_fit_in_200_kilobytes():
    assert len(PAGES["large"].encode()) <= 200_000


def test_a_thousand_rounds_with_many_metrics_and_clients_fit_too():
    record = samples.run(clients=40, rounds=250, speed=0.02)
    record["rounds"] *= 4
    for at, row in enumerate(record["rounds"], start=1):
        record["rounds"][at - 1] = row = {**row, "round": at}
        for part in ("train", "validation", "test"):
            row[part] = {f"{name}_{i}": v for name, v in row[part].items() for i in range(6)}
    record["partition"]["classes"] = [f"class {i}" for i in range(100)]
    record["partition"]["counts"] = [[7 * i % (j + 2) for i in range(100)] for j in range(40)]
    assert len(render_report(record).encode()) <= 300_000


def test_sections_stand_in_the_order_of_the_questions():
    titles = re.findall(r"<h2>(\w+)", PAGES["hello"])
    assert titles == ["Curves", "Clients", "Data", "Rounds", "Problems", "Settings", "Model"]
    text = Page(PAGES["hello"]).text
    assert text.index("Finished") < text.index("Best accuracy") < text.index("Is it learning?")


def test_the_headline_and_the_commands_of_a_run_are_there():
    text = Page(PAGES["hello"]).text
    assert "digits-3 reached accuracy 0.953 on held-out data after 10 rounds" in text
    assert "hansa export digits-3 --to npz" in text and "hansa reproduce digits-3" in text
    assert "22 Nov 2026, 09:41 UTC" in text
    assert "best single client 0.871" in text and "together 0.953" in text


def test_curves_are_one_chart_per_metric_with_all_parts():
    labels = [a["aria-label"] for a in Page(PAGES["hello"]).all("svg") if "aria-label" in a]
    assert [label.split(".")[0] for label in labels[:2]] == ["Accuracy", "Loss"]
    assert all(part in labels[0] for part in ("training", "validation", "held-out"))


def test_a_failed_run_leads_with_cause_next_step_and_problems():
    text = Page(PAGES["failed"]).text
    assert text.index("Failed") < text.index("Round 7 failed: 1 of 8") < text.index("Best accuracy")
    assert "Loss on the clients' training data is not a number since round 4." in text
    assert "Traceback: failures/round-4-client-2.txt" in text
    assert "Problems (12)" in text


def test_forty_of_a_hundred_clients_are_drawn_and_the_rest_is_counted():
    text = Page(PAGES["large"]).text
    assert "The first 40 are shown, 60 more are not." in text


def test_lost_updates_are_shown_large_when_they_are_few():
    assert "Updates lost, 44 of 10,000" in Page(PAGES["large"]).text


def test_regression_has_bars_instead_of_classes():
    text = Page(PAGES["regression"]).text
    assert "Examples by client" in text and "Examples by client and class" not in text
    assert "reached mse 1." in text and "MSE by client" in text


def test_an_empty_run_says_what_will_come():
    text = Page(PAGES["empty"]).text
    assert "study-1 has started; no round is finished yet." in text
    assert "The curves appear with the first finished round." in text


def test_the_same_record_gives_the_same_bytes():
    assert render_report(samples.hello()) == PAGES["hello"]


def test_a_record_that_cannot_be_read_is_refused():
    with pytest.raises(RunError):
        render_report({"run": "x"})
    with pytest.raises(RunError):
        render_compare([samples.hello(), {}])


def test_a_struct_is_as_good_as_plain_data():
    assert "has started" in render_report(RunRecord(run="a", state="running"))


def test_compare_shows_ranges_and_only_what_differs():
    text = Page(PAGES["compare"]).text
    assert "lr = 0.3 is ahead: accuracy 0.961 on held-out data, against 0.958" in text
    assert re.search(r"0\.918 \(0\.91\d to 0\.92\d\)", text)
    assert "learner.optimizer.lr" in text and "data.split.alpha" not in text
    assert "hansa hello" in Page(PAGES["compare nothing"]).text
