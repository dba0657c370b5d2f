"""From an optimizer of declearn's configuration to a chain of Hansa's modules.

declearn's step is x <- x - (lrate u + w_decay x), where u is what regularizers and then modules
make of the gradient.  Hansa's is x <- x - lr u', so that u' = u + (w_decay / lrate) x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hansa.compat.declearn.wire import Named
from hansa.errors import PlanError
from hansa.optimizers import MODULES, REGULARIZERS, Module, chain
from hansa.plan import Import
from hansa.plan.build import build_named
from hansa.text import nearest

PAGE = "See docs/howto/coming-from-declearn-quickrun.md for what is taken over."


class Steps(NamedTuple):
    """How steps are taken."""

    lr: float
    regularizers: list[dict[str, Any]]
    chain: list[dict[str, Any]]
    kept: bool  # whether declearn keeps something from round to round


class _Counterpart(NamedTuple):
    """A module of Hansa's for one of declearn's."""

    name: str
    options: Mapping[str, tuple[str, float]]  # declearn's: Hansa's, and declearn's default
    factor: float = 1.0  # on the option, where Hansa counts it otherwise
    more: Mapping[str, Any] = {}


_DECAYS = {"beta_1": ("beta1", 0.9), "beta_2": ("beta2", 0.99), "eps": ("eps", 1e-7)}
_MODULES = {
    "adagrad": _Counterpart("adagrad", {"eps": ("eps", 1e-7)}),
    "adam": _Counterpart("adam", _DECAYS),
    "ewma": _Counterpart("ewma", {"beta": ("beta", 0.9)}),
    "gaussian-noise": _Counterpart("gaussian_noise", {"std": ("std", 1.0)}),
    "l2-clipping": _Counterpart("clip_tensor", {"max_norm": ("norm", 1.0)}),
    "l2-global-clipping": _Counterpart("clip_global", {"max_norm": ("norm", 1.0)}),
    "momentum": _Counterpart("momentum", {"beta": ("beta", 0.9)}),
    "rmsprop": _Counterpart("rmsprop", {"beta": ("decay", 0.9), "eps": ("eps", 1e-7)}),
    "yogi": _Counterpart("yogi", _DECAYS, more={"bias_correction": True, "initial": 0.0}),
}
_REGULARIZERS = {
    "fedprox": _Counterpart("fed_prox", {"alpha": ("mu", 0.01)}),
    "lasso": _Counterpart("lasso", {"alpha": ("strength", 0.01)}),
    # declearn's gradient is 2 alpha x, Hansa's strength x.
    "ridge": _Counterpart("ridge", {"alpha": ("strength", 0.01)}, factor=2.0),
}
_WITHOUT = {
    "scaffold-client": "A model file trains in code of its own; see docs/howto/models.md for a "
    'torch learner, with which algorithm = "scaffold" works.',
    "scaffold-server": "See docs/howto/models.md for a torch learner, with which "
    'algorithm = "scaffold" works.',
    "yogi-momentum": "Its step differs from Hansa's for negative directions; use ewma.",
    "torch-optim": "Name a module of declearn's in its place, such as adam.",
    "tensorflow-optim": "Name a module of declearn's in its place, such as adam.",
}
_KEEP = ("ewma", "momentum", "nesterov", "adagrad", "adam", "rmsprop", "yogi")  # with round_reset


def refused(why: str, hint: str = PAGE) -> PlanError:
    """Return the error for what has no counterpart."""
    return PlanError("import-refused", f"{why} Nothing was written.", hint)


def given(value: Any) -> str:
    """Return what a message says of a value; None is declearn's nan, or nothing at all."""
    return "is missing" if value is None else f"is {value!r:.60}"


def table(where: str, value: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """Return a table of the configuration, none of whose keys is unknown.

    Raises:
      PlanError: import-refused.
    """
    if not isinstance(value, dict):
        raise refused(f"{where} {given(value)}, and no table.", "Write it as a table.")
    for key in value:
        if key not in known:
            raise refused(f"{where} has the key {key!r}, which declearn does not know.",
                          nearest(key, known))  # fmt: skip
    return value


def number(where: str, value: Any, *, whole: bool = False, least: float = 0.0) -> Any:
    """Return a number of the configuration.

    Raises:
      PlanError: import-refused.
    """
    kinds: Any = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < math.inf:
        kind = "a whole number" if whole else "a number"
        raise refused(f"{where} {given(value)}.", f"Let it be {kind} of at least {least:g}.")
    return value if whole else float(value)


def steps_of(where: str, value: Any, *, server: bool = False) -> Steps:
    """Return what an optimizer does: a number, or a table of Optimizer's arguments.

    Raises:
      PlanError: import-refused, something of it has no counterpart.
    """
    told = {"lrate": value} if isinstance(value, int | float) else value
    told = table(where, told, ("lrate", "w_decay", "regularizers", "modules"))
    rates = {}
    for key, otherwise in (("lrate", None), ("w_decay", 0.0)):
        rate = told.get(key, otherwise)
        if isinstance(rate, list):
            raise refused(
                f"{where}.{key} is the schedule {rate[:1]}.",
                "Write a number, and add a schedule to what the import makes of it: see "
                "docs/reference/optimizers.md.",
            )
        rates[key] = number(f"{where}.{key}", rate)
    if not rates["lrate"]:
        raise refused(f"{where}.lrate is 0.", "Let it be above 0.")
    listed = {key: told.get(key) or [] for key in ("regularizers", "modules")}
    regularizers = _named(
        f"{where}.regularizers", listed["regularizers"], _REGULARIZERS, server=server
    )
    modules = _named(f"{where}.modules", listed["modules"], _MODULES, server=server)
    kept = any(module["name"] in _KEEP for module in modules)
    if rates["w_decay"]:
        modules.append({"name": "decoupled_decay", "rate": rates["w_decay"] / rates["lrate"]})
    return Steps(rates["lrate"], regularizers, modules, kept)


def _named(
    where: str, listed: Any, known: Mapping[str, _Counterpart], *, server: bool
) -> list[dict[str, Any]]:
    if not isinstance(listed, list):
        raise refused(f"{where} {given(listed)}, and no list.", 'Such as ["momentum"].')
    made: list[dict[str, Any]] = []
    for one in listed:
        name, options = (one, {}) if isinstance(one, str) else pair(where, one)
        if name in _WITHOUT:
            raise refused(f"{where} has {name}, which has no counterpart.", _WITHOUT[name])
        if name not in known:
            raise refused(f"{where} has {name!r}, which declearn does not know.",
                          nearest(name, known))  # fmt: skip
        made.append(_counterpart(f"{where}: {name}", dict(options), known[name], server=server))
    return made


def pair(where: str, one: Any) -> tuple[str, dict[str, Any]]:
    """Return a name and its options.

    Raises:
      PlanError: import-refused, it is something else.
    """
    two = isinstance(one, list) and len(one) == 2
    if two and isinstance(one[0], str) and isinstance(one[1], dict):
        return one[0], one[1]
    raise refused(f"{where} has {one!r:.80}.", 'Write a name, or ["name", { option = value }].')


def _counterpart(
    where: str, options: dict[str, Any], to: _Counterpart, *, server: bool
) -> dict[str, Any]:
    """Return a module with all options, because defaults differ."""
    if server and to.name in ("fed_prox", "clip_tensor"):
        raise refused(f"{where} works at clients alone.", "Leave it out.")
    if to.name == "momentum" and options.pop("nesterov", False):
        to = to._replace(name="nesterov")
    if to.name in _KEEP and options.pop("round_reset", False) and server:
        raise refused(f"{where} has round_reset, and a server's chain is kept.", "Leave it out.")
    if to.options is _DECAYS and options.pop("amsgrad", False):
        raise refused(
            f"{where} has amsgrad, whose largest moment is another one in Hansa.",
            'Leave it out, and write the module "amsgrad" into what the import makes of it.',
        )
    if to.name == "gaussian_noise" and (
        options.pop("safe_mode", True) or options.pop("seed", None) is not None
    ):
        raise refused(
            f"{where} draws secret numbers, or from a seed of its own; here noise follows from "
            "the plan's seed.",
            "Say safe_mode = false; secret noise is a site's: see docs/howto/site-owner.md.",
        )
    told = table(where, options, tuple(to.options))
    return {
        "name": to.name,
        **{
            ours: number(f"{where}.{theirs}", told.get(theirs, default)) * to.factor
            for theirs, (ours, default) in to.options.items()
        },
        **to.more,
    }


def local_chain(
    regularizers: Sequence[Named], modules: Sequence[Named], import_module: Import
) -> Module:
    """Return what makes a client's step of a gradient.

    Raises:
      PlanError: a name that is not there, or an option that is out of range.
    """
    listed = (("regularizers", regularizers, REGULARIZERS), ("chain", modules, MODULES))
    return chain(
        *(
            build_named(f"DeclearnApp({what}=...)[{i}]", one, known, kind=Module,
                        import_module=import_module)
            for what, named, known in listed
            for i, one in enumerate(named)
        )
    )  # fmt: skip
