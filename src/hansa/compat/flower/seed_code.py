"""The lines of a server file that make the initial arrays, as a function of their own.

Flower's server makes them; Hansa's runs no project code.  So the lines are copied, as they stand,
into a file that the clients' process runs.  Where that cannot be done for certain, nothing is.
"""

from __future__ import annotations

import ast
import builtins
from typing import NamedTuple

from hansa.compat.flower.server_code import Function, ServerCode

FUNCTION = "initial"
_SILENT = ("print", "log")


class SeedCode(NamedTuple):
    """A file that makes the seed model."""

    text: str
    line: int  # of the server file, where the arrays are named


def seed_code(server: ServerCode) -> SeedCode | None:
    """Return the file, or None where the lines cannot be taken out of the server file."""
    found = server.initial()
    if found is None:
        return None
    expression, function, line = found
    taken = _slice(expression, function)
    if taken is None:
        return None
    parts = [*taken, ast.Return(_Bare().visit(expression))]
    lines = [_Config().visit(_Bare().visit(part)) for part in parts]
    imports = _imports(lines, server)
    if imports is None:
        return None
    body = [f"    {row}" for part in lines for row in ast.unparse(part).splitlines()]
    head = '"""The seed model, as the Flower project\'s server makes it."""'
    return SeedCode(
        "\n".join([head, "", *imports, "", "", f"def {FUNCTION}(run_config):", *body, ""]), line
    )


def _slice(expression: ast.expr, function: Function) -> list[ast.stmt] | None:
    """Return the statements before an expression that it depends on, or None if unsure."""
    needed = _names(expression)
    kept: list[ast.stmt] = []
    until = expression.lineno
    for statement in reversed([s for s in function.body if (s.end_lineno or 0) < until]):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            stored = {name for target in targets for name in _names(target)}
            if stored & needed:
                kept.append(statement)
                needed |= _names(statement.value) if statement.value is not None else set()
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            said = isinstance(statement.value.func, ast.Name) and statement.value.func.id in _SILENT
            if not said and _locals(statement, function) & needed:
                kept.append(statement)
                needed |= _names(statement.value)
        elif _stores(statement) & needed:
            return None  # a loop or a branch decides what the arrays are
    return kept[::-1]


def _imports(parts: list[ast.stmt], server: ServerCode) -> list[str] | None:
    """Return import lines for the names that statements use, or None if one is not importable."""
    used = {name for part in parts for name in _names(part)}
    stored = {name for part in parts for name in _stores(part)}
    lines = []
    whole = {
        alias.asname or alias.name.partition(".")[0]: alias
        for node in ast.walk(server.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for name in sorted(used - stored - {"run_config"}):
        if name in server.imports:
            module, original = server.imports[name]
            as_name = "" if original == name else f" as {name}"
            lines.append(f"from {module} import {original}{as_name}")
        elif name in whole:
            as_name = f" as {whole[name].asname}" if whole[name].asname else ""
            lines.append(f"import {whole[name].name}{as_name}")
        elif not hasattr(builtins, name):
            return None  # defined in the server file, which is not imported
    return lines


class _Config(ast.NodeTransformer):
    """Writes `run_config` for `context.run_config`."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if node.attr == "run_config" and isinstance(node.value, ast.Name):
            return ast.Name("run_config", ast.Load())
        return self.generic_visit(node)


class _Bare(ast.NodeTransformer):
    """Takes away the call that makes a record or bytes of arrays."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        names = ("ArrayRecord", "ParametersRecord", "ndarrays_to_parameters")
        last = node.func.attr if isinstance(node.func, ast.Attribute) else None
        last = node.func.id if isinstance(node.func, ast.Name) else last
        if last in names and len(node.args) + len(node.keywords) == 1:
            inner = node.args[0] if node.args else node.keywords[0].value
            return self.visit(inner)  # type: ignore[no-any-return]
        return self.generic_visit(node)


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _stores(node: ast.AST) -> set[str]:
    return {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }


def _locals(node: ast.AST, function: Function) -> set[str]:
    """Return the names in a node that its function assigns: those it may change."""
    return _names(node) & _stores(function)
