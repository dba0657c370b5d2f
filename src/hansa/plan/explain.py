"""What each key of a plan means, read from the schema's own source."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import msgspec

from hansa.plan import schema
from hansa.plan.schema import Plan


def meanings() -> dict[str, str]:
    """Return the meaning of each key, by dotted name; a table's is its class's docstring.

    A key of [[learner.change]] is named without a number, as `learner.change.lr`.

    >>> meanings()["rounds"]
    'rounds at most'
    """
    documented = _field_docs()
    told: dict[str, str] = {}

    def visit(kind: Any, prefix: str) -> None:
        for field in msgspec.structs.fields(kind):
            table = next((k for k in _kinds(field.type) if k.__module__ == schema.__name__), None)
            about_table = inspect.getdoc(table) or "" if table else ""
            told[prefix + field.name] = documented.get((kind.__name__, field.name), about_table)
            if table:
                visit(table, f"{prefix}{field.name}.")

    visit(Plan, "")
    return told


def _kinds(annotation: Any) -> list[type]:
    """Return the struct types in an annotation such as `tuple[Change, ...]`."""
    kinds = (annotation, *getattr(annotation, "__args__", ()))
    return [k for k in kinds if isinstance(k, type) and issubclass(k, msgspec.Struct)]


def _field_docs() -> dict[tuple[str, str], str]:
    """Return the string that follows each field of each class of the schema."""
    tree = ast.parse(inspect.getsource(schema))
    docs: dict[tuple[str, str], str] = {}
    for kind in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, after in zip(kind.body, kind.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                docs[kind.name, field.target.id] = " ".join(str(after.value.value).split())
    return docs
