"""A FLARE app's own aggregator and shareable generator run unmodified, in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flare_apps import UNEQUAL, W0, client_config, saved, server_config, write_app
from projects import run_interrupted, simulate

from hansa.compat.nvflare.writing import import_app
from hansa.dev import Rehearsal
from hansa.errors import PlanError, RunError

HEAD = """
import numpy as np
from constants import KEY
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.learnable import Learnable
from nvflare.app_common.abstract.shareable_generator import ShareableGenerator
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import (
    FullModelShareableGenerator,
)


class Collects(Aggregator):
    def __init__(self, lowest=-1e9):
        super().__init__()
        self.lowest, self.results, self.heard = lowest, {}, 0

    def handle_event(self, event_type: str, fl_ctx: FLContext):
        if event_type == AppEventType.BEFORE_CONTRIBUTION_ACCEPT:
            self.heard += 1

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        name = shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, "?")
        assert fl_ctx.get_peer_context().get_identity_name() == name
        number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        assert shareable.get_header(AppConstants.CONTRIBUTION_ROUND) == number
        assert shareable.get_cookie(AppConstants.CONTRIBUTION_ROUND) == number
        dxo = from_shareable(shareable)
        if dxo.data_kind == DataKind.WEIGHT_DIFF and dxo.data[KEY][0, 0] < self.lowest:
            return False
        steps = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
        assert steps == {"site-1": 3, "site-2": 1, "site-3": 7}[name]
        self.results[name] = dxo.data[KEY]
        return True

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        assert list(self.results) == sorted(self.results)
        kind, data = self.combine(list(self.results.values()), fl_ctx)
        self.results = {}
        return DXO(kind, data={KEY: data}).to_shareable()

"""
MEDIAN = """
class Mine(Collects):
    def combine(self, results, fl_ctx):
        return DataKind.WEIGHTS, np.median(np.stack(results), axis=0)
"""
MOMENTUM = """
class Mine(Collects):
    def __init__(self):
        super().__init__()
        self.velocity = None

    def combine(self, results, fl_ctx):
        mean = sum(results) / len(results)
        self.velocity = mean if self.velocity is None else 0.5 * self.velocity + mean
        assert self.heard == 3 * (fl_ctx.get_prop(AppConstants.CURRENT_ROUND) + 1)
        return DataKind.WEIGHT_DIFF, self.velocity
"""
HALVES = """
class Halves(FullModelShareableGenerator):
    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Learnable:
        model = super().shareable_to_learnable(shareable, fl_ctx)
        model["weights"] = {name: array / 2 for name, array in model["weights"].items()}
        return model
"""
MODELS = """
class Mine(ModelAggregator):
    def __init__(self):
        super().__init__()
        self.models = []

    def accept_model(self, model: FLModel):
        self.models.append(model)

    def aggregate_model(self) -> FLModel:
        last = max(self.models, key=lambda one: one.meta["client_name"])
        self.info(f"takes {last.meta}")
        return FLModel(params_type=last.params_type, params=last.params)

    def reset_stats(self):
        self.models = []
"""


def app(place: Path, code: str, kind: str = "WEIGHTS", **asked: Any) -> Path:
    """Import an app of three clients whose server's side is partly its own."""
    server = server_config(min_clients=3, num_rounds=asked.pop("rounds", 1))
    if "class Mine" in code:
        server["components"][2] = {
            "id": "aggregator", "path": "own_server.Mine", "args": asked.pop("args", {})
        }  # fmt: skip
    else:
        server["components"][2]["args"]["expected_data_kind"] = kind
    if "class Halves" in code:
        server["components"][1] = {"id": "shareable_generator", "path": "own_server.Halves"}
    source = write_app(place / "app", UNEQUAL, server=server, client=client_config(kind=kind))
    (source / "custom" / "own_server.py").write_text(HEAD + code)
    return import_app(source).folder


def test_a_median_of_its_own_is_that_in_simulation_and_in_a_rehearsal(tmp_path: Path) -> None:
    """The middle of 1.5, -4 and 0.25; their mean is not, weighted or not.  It writes as it goes."""
    writes = """
    def reset(self, fl_ctx):
        run = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_run_number())
        with open(f"{run}/rounds.txt", "a") as file:
            file.write("one more")
"""
    folder = app(tmp_path, MEDIAN + writes, rounds=2)
    runs = [simulate(folder)]
    with Rehearsal(tmp_path / "rehearsed", folder, sites=["site-1", "site-2", "site-3"]) as place:
        runs.append(place.run())
    for run in runs:
        assert saved(run).dtype == np.float32 and np.array_equal(saved(run), W0 + 2 * 0.25)
    assert runs[0].commits()[-1]["model"] == runs[1].commits()[-1]["model"]


def test_values_that_no_sum_would_take_reach_a_robust_aggregator(tmp_path: Path) -> None:
    """One client of three sends a million times too much; the median is what the others say."""
    folder = app(tmp_path, MEDIAN)
    trainer = folder / "custom" / "np_trainer.py"
    trainer.write_text(trainer.read_text().replace("-4.0", "-4.0e6"))
    assert np.array_equal(saved(simulate(folder)), W0 + 0.25)


def test_what_a_weighted_mean_has_in_attributes_is_there_for_what_derives_from_it(
    tmp_path: Path,
) -> None:
    """As FLARE keeps them: by the name of a DXO, which is empty for a single one."""
    own = """
from nvflare.app_common.aggregators import InTimeAccumulateWeightedAggregator
class Mine(InTimeAccumulateWeightedAggregator):
    def accept(self, shareable, fl_ctx):
        assert list(self.expected_data_kind.values()) == ["WEIGHTS"]
        self.aggregation_weights[self._single_dxo_key]["site-2"] = 8.0
        return super().accept(shareable, fl_ctx)
"""
    args = {"expected_data_kind": "WEIGHTS", "aggregation_weights": {"site-3": 0.5}}
    run = simulate(app(tmp_path, own, args=args))
    mean = (3 * 1.5 + 8 * -4 + 0.5 * 7 * 0.25) / (3 + 8 + 0.5 * 7)
    np.testing.assert_allclose(saved(run), W0 + mean, rtol=1e-6)


def test_attributes_are_the_memory_from_round_to_round(tmp_path: Path) -> None:
    """Momentum: v1 = d, v2 = d/2 + d, so the model has moved by 2.5 d."""
    run = simulate(app(tmp_path, MOMENTUM, "WEIGHT_DIFF", rounds=2))
    np.testing.assert_allclose(saved(run), W0 + 2.5 * (1.5 - 4 + 0.25) / 3, rtol=1e-6)


def test_what_it_does_not_accept_is_left_out_and_told(tmp_path: Path, capfd: Any) -> None:
    run = simulate(app(tmp_path, MEDIAN.replace("WEIGHTS", "WEIGHT_DIFF"), "WEIGHT_DIFF",
                       args={"lowest": -3}))  # fmt: skip
    assert np.array_equal(saved(run), W0 + (1.5 + 0.25) / 2)
    assert "contribution of site-2 to round 0 was rejected" in capfd.readouterr().err


def test_a_generator_of_its_own_halves_with_flares_aggregator(tmp_path: Path) -> None:
    """The weighted mean of 1.5, -4 and 0.25 by 3, 1 and 7 steps, and then half of it all."""
    run = simulate(app(tmp_path, HALVES, "WEIGHT_DIFF"))
    mean = (3 * 1.5 - 4 + 7 * 0.25) / 11
    np.testing.assert_allclose(saved(run), (W0 + mean) / 2, rtol=1e-6)


def test_an_aggregator_of_models_takes_them_as_such(tmp_path: Path) -> None:
    assert np.array_equal(saved(simulate(app(tmp_path, MODELS, rounds=2))), W0 + 2 * 0.25)


def test_the_helper_of_flares_weighs_as_told(tmp_path: Path) -> None:
    """1.5, -4 and 0.25 by the squares of 3, 1 and 7 steps."""
    code = (
        "from nvflare.app_common.aggregators.weighted_aggregation_helper import (\n"
        "    WeightedAggregationHelper,\n)\n\n"
        "class Mine(ModelAggregator):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.helper = WeightedAggregationHelper()\n"
        "    def accept_model(self, model):\n"
        "        steps = model.meta['NUM_STEPS_CURRENT_ROUND']\n"
        "        name = model.meta['client_name']\n"
        "        self.helper.add(model.params, steps ** 2, name, model.current_round)\n"
        "    def aggregate_model(self):\n"
        "        return FLModel(params=self.helper.get_result())\n"
        "    def reset_stats(self):\n"
        "        self.helper.reset_stats()\n"
    )
    mean = (9 * 1.5 - 4 + 49 * 0.25) / 59
    run = simulate(app(tmp_path, code, rounds=2))
    np.testing.assert_allclose(saved(run), W0 + 2 * mean, rtol=1e-6)


def test_a_mean_of_values_that_are_weighted_already_divides_by_the_weights(tmp_path: Path) -> None:
    """Neither sum nor weights had the steps: it was the plain mean."""
    code = (
        "from nvflare.app_common.aggregators import InTimeAccumulateWeightedAggregator\n"
        "class Mine(InTimeAccumulateWeightedAggregator):\n"
        "    def __init__(self):\n"
        "        super().__init__(expected_data_kind='WEIGHTS', weigh_by_local_iter=False)\n"
    )
    found = saved(simulate(app(tmp_path, code)))
    np.testing.assert_allclose(found, (3 * W0 + 1.5 - 4 + 0.25) / 11, rtol=1e-6)


def test_fed_avg_takes_an_aggregator_of_models(tmp_path: Path) -> None:
    server = server_config(persistor="np_model_persistor.NPModelPersistor")
    own = {"path": "own_server.Mine", "args": {}}
    given = {"num_clients": 3, "num_rounds": 2, "persistor_id": "persistor", "aggregator": own}
    path = "nvflare.app_common.workflows.fedavg.FedAvg"
    server["workflows"] = [{"id": "first", "path": path, "args": given}]
    source = write_app(tmp_path / "app", UNEQUAL, server=server)
    unprepared = MODELS.replace("        self.models = []\n\n    def accept", "\n    def accept")
    (source / "custom" / "own_server.py").write_text(HEAD + unprepared)
    assert np.array_equal(saved(simulate(import_app(source).folder)), W0 + 2 * 0.25)


def test_other_dicts_of_its_own_stay_what_they_are(tmp_path: Path) -> None:
    """A defaultdict and a Counter that __init__ makes: they were plain dicts at the first round."""
    counts = """
from collections import Counter, defaultdict
class Mine(Collects):
    def __init__(self):
        super().__init__()
        self.sums, self.rounds = defaultdict(float), Counter()

    def combine(self, results, fl_ctx):
        self.rounds["all"] += 1
        for result in results:
            self.sums["moved"] += float(result[0, 0])
        return DataKind.WEIGHT_DIFF, 0 * results[0] + self.sums["moved"] * self.rounds["all"]
"""
    run = simulate(app(tmp_path, counts, "WEIGHT_DIFF", rounds=2))
    np.testing.assert_allclose(saved(run), W0 - 2.25 - 2 * 2 * 2.25, rtol=1e-6)


NOISE = """
class Mine(Collects):
    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(7)

    def combine(self, results, fl_ctx):
        return DataKind.WEIGHT_DIFF, sum(results) * 0 + self.rng.normal()
"""


def test_where_a_generator_of_its_own_stands_is_kept(tmp_path: Path) -> None:
    """Three numbers of one generator, also where another process draws the second or the third."""
    folder = app(tmp_path, NOISE, "WEIGHT_DIFF", rounds=3)
    whole = simulate(folder)
    np.testing.assert_allclose(
        saved(whole), W0 + np.random.default_rng(7).normal(size=3).sum(), rtol=1e-5
    )
    for call in (2, 3):
        made = run_interrupted(folder, tmp_path / f"runs-{call}", "commit", call=call)
        assert made.commits()[-1]["model"] == whole.commits()[-1]["model"]


def test_where_nothing_is_accepted_the_model_stays(tmp_path: Path) -> None:
    """As in FLARE, whose weighted mean of nothing is an empty DXO; the last round is like it."""
    picky = """
from nvflare.app_common.aggregators.intime_accumulate_model_aggregator import (
    InTimeAccumulateWeightedAggregator,
)
class Mine(InTimeAccumulateWeightedAggregator):
    def accept(self, shareable, fl_ctx):
        first = fl_ctx.get_prop(AppConstants.CURRENT_ROUND) == 0
        return first and super().accept(shareable, fl_ctx)
"""
    mean = (3 * 1.5 - 4 + 7 * 0.25) / 11
    for kind in ("WEIGHTS", "WEIGHT_DIFF"):
        folder = app(tmp_path / kind, picky, kind, rounds=2, args={"expected_data_kind": kind})
        np.testing.assert_allclose(saved(simulate(folder)), W0 + mean, rtol=1e-6)


def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    """The process that knew the velocity is gone; the commit has it."""
    folder = app(tmp_path, MOMENTUM, "WEIGHT_DIFF", rounds=3)
    whole = simulate(folder).commits()[-1]["model"]
    made = run_interrupted(folder, tmp_path / "runs", "commit", call=2)
    assert made.commits()[-1]["model"] == whole


FAILING = {
    "raises": (MEDIAN.replace("return Data", "raise KeyError('no tissue')\n        return Data"),
               "no tissue"),
    "nothing": (MEDIAN + "    def aggregate(self, fl_ctx):\n        return None\n",
                "aggregate of the app's Mine returned NoneType, and no Shareable"),
    "a code": (MEDIAN + "    def aggregate(self, fl_ctx):\n"
               "        answer = Shareable()\n"
               "        answer.set_return_code('EMPTY_RESULT')\n        return answer\n",
               "aggregate of the app's Mine answered with EMPTY_RESULT"),
    "no model": (MEDIAN + HALVES + "    def shareable_to_learnable(self, shareable, fl_ctx):\n"
                 "        return {}\n", "shareable_to_learnable of the app's Halves returned no"),
    "raises when it is made": (MEDIAN + "    def __init__(self):\n"
                               "        raise OSError('no key')\n",
                               r"own_server.py, line \d+, raised OSError: no key"),
    "lacks methods": ("class Mine(Aggregator):\n    def reset(self, fl_ctx):\n        pass\n",
                      "own_server.Mine of the app has no accept and no aggregate, which FLARE"),
    "lacks a model's": ("class Mine(ModelAggregator):\n    def accept_model(self, model):\n"
                        "        pass\n", "own_server.Mine of the app has no aggregate_model"),
    "lacks half": (MEDIAN + "class Halves(ShareableGenerator):\n"
                   "    def shareable_to_learnable(self, shareable, fl_ctx):\n        pass\n",
                   "own_server.Halves of the app has no learnable_to_shareable"),
    "no such class": ("class Other(Collects):\n    pass  # not class Mine\n",
                      "own_server has no 'Mine', which the app names. Correct the path in "
                      "server.py"),
    "changes what lies deep": (
        "class Node:\n    pass\n" + MEDIAN
        + "    def __init__(self):\n        super().__init__()\n"
        "        self.outer, inner = Node(), Node()\n"
        "        self.outer.inner, inner.count = inner, 0\n"
        "        self.kept = [self.outer]\n"
        "    def reset(self, fl_ctx):\n        self.outer.inner.count += 1\n",
        "outer has changed, and a Node cannot"),
    "panic": (MEDIAN + "    def combine(self, results, fl_ctx):\n"
              "        self.system_panic('too few', fl_ctx)\n"
              "        return 'WEIGHTS', results[0]\n",
              "too few"),
    "keeps objects": (MEDIAN + "    def reset(self, fl_ctx):\n"
                      "        self.results = {1: object()}\n",
                      "cannot be kept"),
    "no aggregator": ("class Mine:\n    pass\n", "no Aggregator"),
    "a part that does nothing here": (
        "from nvflare.app_common.aggregators.dxo_aggregator import DXOAggregator\n" + MEDIAN
        + "    def __init__(self):\n        self.inner = DXOAggregator()\n", "not stand in for"),
    "another shape": (MEDIAN.replace("axis=0", "axis=None"), "shape"),
    "sends half": (MEDIAN + HALVES + "    def learnable_to_shareable(self, model, fl_ctx):\n"
                   "        half = model['weights'][KEY] / 2\n"
                   "        return DXO('WEIGHTS', {KEY: half}).to_shareable()\n",
                   "changes the model"),
    "sends a header": (MEDIAN + HALVES + "    def learnable_to_shareable(self, model, fl_ctx):\n"
                       "        sent = super().learnable_to_shareable(model, fl_ctx)\n"
                       "        sent.set_header('rate', 1)\n        return sent\n", "adds rate"),
}  # fmt: skip


@pytest.mark.parametrize("way", FAILING)
def test_what_fails_ends_the_run_with_its_sentence(tmp_path: Path, way: str) -> None:
    code, said = FAILING[way]
    with pytest.raises(RunError, match=said):
        simulate(app(tmp_path, code))


def test_with_a_cross_site_evaluation_it_is_refused(tmp_path: Path) -> None:
    server = server_config(min_clients=3)
    server["components"][2] = {"id": "aggregator", "path": "own_server.Mine"}
    server["workflows"].append(
        {"id": "x", "path": "nvflare.app_common.workflows.cross_site_model_eval.CrossSiteModelEval"}
    )
    source = write_app(tmp_path / "app", UNEQUAL, server=server)
    with pytest.raises(PlanError, match="CrossSiteModelEval; both together"):
        import_app(source)
