"""What a Flower project's server file says, read from its syntax and never executed.

Looked for are the server class and its arguments, the settings that messages to clients carry, and
the lines that make the initial arrays.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.compat.flower.reading import PROJECT_FILE
from hansa.compat.flower.strategies import KNOWN, by_place

Function = ast.FunctionDef | ast.AsyncFunctionDef
UNKNOWN = object()
"""A value that is not known without running the code."""

_PLACE = "argument "  # and a number: name of what stands at no known place
_DEPTH = 20  # names that are followed to a value; a cycle ends here
_TRAIN_CONFIG = ("train_config", "on_fit_config_fn")
_EVALUATE_CONFIG = ("evaluate_config", "on_evaluate_config_fn")
_INITIAL = ("initial_arrays", "initial_parameters")
_WRAPPERS = ("ArrayRecord", "ParametersRecord", "ndarrays_to_parameters", "ConfigRecord")


class Strategy(NamedTuple):
    """The server class that a file uses."""

    name: str  # of Flower's class, perhaps the base of the project's own
    own: str | None  # name of the project's own class that derives from it
    line: int
    arguments: dict[str, Any]  # those whose values are known
    unknown: list[str]  # those whose values are not; "*", "**" or "argument 1" without a name
    older: bool


class Settings(NamedTuple):
    """What messages to clients carry."""

    values: dict[str, Any]
    keys: dict[str, str]  # which of them are a value of run_config, by its key there
    unknown: list[str]  # names whose values are not known


class ServerCode:
    """One server file.

    Args:
      path: of the file.
      package: its package, for relative imports; "" for none.
      run_config: what `context.run_config` holds.

    Raises:
      SyntaxError: it is not Python.
    """

    def __init__(self, path: Path, package: str, run_config: Mapping[str, Any]) -> None:
        self.tree = ast.parse(path.read_text(encoding="utf-8-sig"))
        self._run_config, self._package = run_config, package
        self._classes = {n.name: n for n in ast.walk(self.tree) if isinstance(n, ast.ClassDef)}
        self._functions = {n.name: n for n in ast.walk(self.tree) if isinstance(n, Function)}
        self.imports = dict(self._imported())

    def strategies(self) -> list[Strategy]:
        """Return every use of a server class, in order; wrappers around one come with it."""
        found = []
        for scope, call in self._calls():
            own = self.called(call)
            name = own if own in KNOWN else self._base_of(own)
            if name is None or (own in KNOWN and not self._of_flower(call, name)):
                continue
            older = "server.strategy" in self._origin(call, name)
            places = by_place(name, older=older) if own == name else ()
            known, unknown = self._arguments(call, scope, places)
            line = call.lineno
            found.append(Strategy(name, None if own == name else own, line, known, unknown, older))
        return found

    def settings(self, *, train: bool) -> Settings:
        """Return what messages to train, or to evaluate, carry."""
        values: dict[str, Any] = {}
        keys: dict[str, str] = {}
        unknown: list[str] = []
        for scope, call in self._calls():
            for keyword in call.keywords:
                if keyword.arg not in (_TRAIN_CONFIG if train else _EVALUATE_CONFIG):
                    continue
                where, table = self._dict_of(keyword.value, scope)
                if table is None:
                    unknown.append(str(keyword.arg))
                    continue
                for key, value in zip(table.keys, table.values, strict=True):
                    if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                        continue
                    told = self.value(value, where)
                    if told is UNKNOWN:
                        unknown.append(key.value)
                        continue
                    values[key.value] = told
                    if (from_config := self._config_key(value, where)) is not None:
                        keys[key.value] = from_config
        return Settings(values, keys, unknown)

    def rounds(self) -> tuple[int, str] | None:
        """Return how many rounds the file asks for, and where it says so."""
        for scope, call in self._calls():
            named = [k.value for k in call.keywords if k.arg == "num_rounds"]
            if self.called(call) == "ServerConfig":
                named += call.args[:1]
            for node in named:
                told = self.value(node, scope)
                if isinstance(told, int) and told > 0:
                    key = self._config_key(node, scope)
                    in_file = key in self._run_config
                    return told, f"{key} in {PROJECT_FILE}" if in_file else f"line {node.lineno}"
        return None

    def initial(self) -> tuple[ast.expr, Function, int] | None:
        """Return the expression for the initial arrays, its function and line."""
        for scope, call in self._calls():
            for keyword in call.keywords:
                if keyword.arg in _INITIAL and scope is not None:
                    if isinstance(keyword.value, ast.Constant):  # None: ask a client
                        continue
                    return keyword.value, scope, keyword.value.lineno
        return None

    def value(self, node: ast.expr, scope: Function | None, depth: int = _DEPTH) -> Any:
        """Return the value of an expression, or UNKNOWN."""
        if not depth:
            return UNKNOWN  # lr = float(lr)
        if isinstance(node, ast.Constant):
            return node.value
        if (key := self._config_key(node, scope)) is not None:
            return self._run_config.get(key, _default(node))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self.value(node.operand, scope, depth - 1)
            return -number if isinstance(number, int | float) else UNKNOWN
        if isinstance(node, ast.Name):
            assigned = _assigned(node.id, scope, self.tree)
            return UNKNOWN if assigned is None else self.value(assigned, scope, depth - 1)
        if isinstance(node, ast.Call) and self.called(node) in ("int", "float", "str", "bool"):
            return self._converted(node, scope, depth)
        return UNKNOWN

    def _converted(self, node: ast.Call, scope: Function | None, depth: int) -> Any:
        kinds = {"int": int, "float": float, "str": str, "bool": bool}
        given = self.value(node.args[0], scope, depth - 1) if len(node.args) == 1 else UNKNOWN
        if not isinstance(given, int | float | str):
            return UNKNOWN
        try:
            return kinds[self.called(node)](given)
        except ValueError:
            return UNKNOWN

    def called(self, call: ast.Call) -> str:
        """Return the last name of what is called, as it was named where it was defined."""
        name = call.func.attr if isinstance(call.func, ast.Attribute) else _id(call.func)
        return self.imports[name][1] if name in self.imports else name

    def _calls(self) -> Iterator[tuple[Function | None, ast.Call]]:
        """Yield every call with the innermost function that it stands in."""
        scopes: list[tuple[ast.AST, Function | None]] = [(self.tree, None)]
        while scopes:
            node, scope = scopes.pop(0)
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Call):
                    yield scope, child
                scopes.append((child, child if isinstance(child, Function) else scope))

    def _imported(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield (module, original name) of imported names."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if node.level:
                    parents = self._package.split(".") if self._package else []
                    kept = parents[: len(parents) - node.level + 1]
                    module = ".".join([*kept, *([module] if module else [])])
                for alias in node.names:
                    yield alias.asname or alias.name, (module, alias.name)

    def _base_of(self, name: str) -> str | None:
        """Return the class of Flower's that a class of the file derives from."""
        for _ in range(len(self._classes) + 1):
            if name not in self._classes:
                return None
            for base in self._classes[name].bases:
                last = base.attr if isinstance(base, ast.Attribute) else _id(base)
                last = self.imports.get(last, ("", last))[1]
                if last in KNOWN:
                    return last
                name = last
        return None

    def _origin(self, call: ast.Call, name: str) -> str:
        if isinstance(call.func, ast.Attribute):
            return ast.unparse(call.func)
        return next((module for module, last in self.imports.values() if last == name), "")

    def _of_flower(self, call: ast.Call, name: str) -> bool:
        """Tell Flower's own class from another of that name."""
        return "strategy" in self._origin(call, name)

    def _arguments(
        self, call: ast.Call, scope: Function | None, places: tuple[str, ...]
    ) -> tuple[dict[str, Any], list[str]]:
        """Return what a call is given by name, and the names of what is not known."""
        known: dict[str, Any] = {}
        unknown: list[str] = []
        starred = any(isinstance(node, ast.Starred) for node in call.args)
        given = [("*", node) for node in call.args] if starred else list(_placed(call, places))
        for name, node in [*given, *((word.arg or "**", word.value) for word in call.keywords)]:
            # What stands at no known place may be anything.
            told = UNKNOWN if name.startswith(("*", _PLACE)) else self.value(node, scope)
            if told is UNKNOWN:
                unknown.append(name)
            else:
                known[name] = told
        return known, list(dict.fromkeys(unknown))

    def _dict_of(
        self, node: ast.expr, scope: Function | None, depth: int = _DEPTH
    ) -> tuple[Function | None, ast.Dict | None]:
        """Return the dict that an expression is, or that a function of this name returns."""
        if isinstance(node, ast.Call) and self.called(node) in _WRAPPERS and len(node.args) == 1:
            node = node.args[0]
        if isinstance(node, ast.Dict):
            return scope, node
        if isinstance(node, ast.Name) and depth:
            if (assigned := _assigned(node.id, scope, self.tree)) is not None:
                return self._dict_of(assigned, scope, depth - 1)
            if (function := self._functions.get(node.id)) is not None:
                returns = [n for n in ast.walk(function) if isinstance(n, ast.Return)]
                if len(returns) == 1 and returns[0].value is not None:
                    return self._dict_of(returns[0].value, function, depth - 1)
        return scope, None

    def _config_key(
        self, node: ast.expr, scope: Function | None, depth: int = _DEPTH
    ) -> str | None:
        """Return the key if an expression reads `run_config`, directly or by a name for a value."""
        if not depth:
            return None
        if isinstance(node, ast.Name):
            assigned = _assigned(node.id, scope, self.tree)
            return None if assigned is None else self._config_key(assigned, scope, depth - 1)
        if isinstance(node, ast.Subscript) and self._is_config(node.value, scope):
            return _text(node.slice)
        if not isinstance(node, ast.Call) or not node.args:
            return None
        got = isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        if got and self._is_config(node.func.value, scope):  # type: ignore[attr-defined]
            return _text(node.args[0])
        if self.called(node) in ("int", "float"):
            return self._config_key(node.args[0], scope, depth - 1)
        return None

    def _is_config(self, node: ast.expr, scope: Function | None) -> bool:
        if isinstance(node, ast.Name):
            assigned = _assigned(node.id, scope, self.tree)
            return isinstance(assigned, ast.Attribute) and assigned.attr == "run_config"
        return isinstance(node, ast.Attribute) and node.attr == "run_config"


def _assigned(name: str, scope: Function | None, tree: ast.Module) -> ast.expr | None:
    """Return what a name is assigned, if it is assigned once, in its function or in the file."""
    inside = list(ast.walk(scope)) if scope is not None else []
    for nodes in (inside, tree.body):
        found = [value for node in nodes if (value := _assignment(node, name)) is not None]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _assignment(node: ast.AST, name: str) -> ast.expr | None:
    if isinstance(node, ast.Assign) and name in map(_id, node.targets):
        return node.value
    return node.value if isinstance(node, ast.AnnAssign) and _id(node.target) == name else None


def _placed(call: ast.Call, places: tuple[str, ...]) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a call is given without a name, by the name of its place."""
    for number, node in enumerate(call.args):
        yield places[number] if number < len(places) else f"{_PLACE}{number + 1}", node


def _default(node: ast.expr) -> Any:
    """Return the default of `run_config.get(key, default)`."""
    if isinstance(node, ast.Call) and len(node.args) == 2:
        return node.args[1].value if isinstance(node.args[1], ast.Constant) else UNKNOWN
    return UNKNOWN


def _id(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr) -> str | None:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else None  # type: ignore[attr-defined]
