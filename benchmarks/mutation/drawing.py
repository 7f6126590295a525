"""Mutants of a source file: small changes of its syntax tree, each with the statement it changes.

A mutant is named by content (file, function, statement before and after), never by line, so that it
stays the same when something else in the file changes. Left alone: annotations, decorators, what a
`raise` says, texts, and `strict=` of zip.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

COMPARE: dict[type, type] = {ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.Eq: ast.NotEq, ast.In: ast.NotIn}
COMPARE |= {ast.Is: ast.IsNot} | {b: a for a, b in {**COMPARE, ast.Is: ast.IsNot}.items()}
ARITHMETIC: dict[type, type] = {ast.Add: ast.Sub, ast.Mult: ast.Div, ast.BitOr: ast.BitAnd}
ARITHMETIC |= {b: a for a, b in ARITHMETIC.items()}
ARITHMETIC |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult}
NAMES = {"min": "max", "minimum": "maximum", "argmin": "argmax", "any": "all", "floor": "ceil"}
NAMES |= {b: a for a, b in NAMES.items()}
UNTOUCHED = {"annotation", "returns", "decorator_list", "bases", "pattern", "type_comment"}


class Mutant(NamedTuple):
    """One change.

    Attributes:
        file: relative to the repository.
        function: qualified name; empty at the top of the file.
        line: of the statement, for people.
        operator: kind of change.
        before, after: the statement, or the first line of a compound one.
        number: among equal changes of one function.
    """

    file: str
    function: str
    line: int
    operator: str
    before: str
    after: str
    number: int

    @property
    def id(self) -> str:
        """Name by content."""
        parts = (self.file, self.function, self.before, self.after, str(self.number))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class _Edit(NamedTuple):
    """Put a value into an attribute of a node, or into a list."""

    operator: str
    holder: Any
    key: Any
    value: Any

    def swap(self) -> _Edit:
        """Make the change; returns the one that takes it back."""
        if isinstance(self.holder, list):
            old, self.holder[self.key] = self.holder[self.key], self.value
        else:
            old = getattr(self.holder, self.key)
            setattr(self.holder, self.key, self.value)
        return self._replace(value=old)


def mutants(root: Path, file: str) -> list[Mutant]:
    """Every mutant of a file, in the order of its text."""
    return [mutant for mutant, _ in _changed(root, file)]


def mutated(root: Path, wanted: Mutant) -> str:
    """The source of a file with one change."""
    return next(ast.unparse(tree) for m, tree in _changed(root, wanted.file) if m.id == wanted.id)


def _changed(root: Path, file: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """Each mutant with the tree, which is changed until the next one is asked for."""
    tree = ast.parse((root / file).read_text(encoding="utf-8"))
    seen: Counter[tuple[str, ...]] = Counter()
    for edit, statement, function in _edits(tree, None, ""):
        whole = edit.operator == "removed statement"
        before = _headline(statement)
        back = edit.swap()
        after = "pass" if whole else _headline(statement)
        key = (function, before, after)
        if after != before:
            yield Mutant(file, function, statement.lineno, edit.operator, *key[1:], seen[key]), tree
            seen[key] += 1
        back.swap()


def _headline(statement: ast.stmt) -> str:
    """A statement without the statements inside it, on one line."""
    alone = copy.copy(statement)
    for field in ("orelse", "finalbody", "handlers", "decorator_list"):
        if hasattr(alone, field):
            setattr(alone, field, [])
    if hasattr(alone, "body"):
        alone.body = [ast.Pass()]
    return ast.unparse(alone).split("\n")[0]


def _edits(
    node: ast.AST, statement: ast.stmt | None, function: str
) -> Iterator[tuple[_Edit, ast.stmt, str]]:
    """Every edit below a node, with the statement and the function that it is in."""
    if isinstance(node, ast.stmt):
        statement = node
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        function = f"{function}.{node.name}".lstrip(".")
    bound: set[str] = set()
    for holder, key, child in _children(node):
        if statement is not None and not isinstance(child, ast.stmt):
            yield from ((edit, statement, function) for edit in _of_expression(holder, key, child))
        if isinstance(child, ast.stmt) and _has_effect(child, bound):
            yield _Edit("removed statement", holder, key, ast.Pass()), child, function
        if not isinstance(child, ast.Raise):
            yield from _edits(child, statement, function)


def _children(node: ast.AST) -> Iterator[tuple[Any, Any, ast.AST]]:
    """Where each child of a node is kept, and the child."""
    for field, value in ast.iter_fields(node):
        if field in UNTOUCHED or isinstance(node, ast.JoinedStr):
            continue
        if isinstance(value, list):
            found = [(value, i, each) for i, each in enumerate(value) if isinstance(each, ast.AST)]
            yield from (f for f in found if not _strict(f[2]))
        elif isinstance(value, ast.AST):
            yield node, field, value


def _strict(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _has_effect(statement: ast.stmt, bound: set[str]) -> bool:
    """Whether a statement can go and leave a program; `bound` grows by the names it sets."""
    match statement:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue():
            return True
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute(), *_]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]):
            again = name in bound
            bound.add(name)
            return again
    return False


def _of_expression(holder: Any, key: Any, node: ast.AST) -> Iterator[_Edit]:
    """Edits of one node that is no statement."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield _Edit("comparison", ops, i, COMPARE[type(op)]())
        case ast.BinOp(op=op) if type(op) in ARITHMETIC and not _text(node):
            yield _Edit("arithmetic", node, "op", ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield _Edit("boolean", node, "op", ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield _Edit("boolean or sign", holder, key, node.operand)
        case ast.Constant(value=value) if type(value) in (int, float):
            yield _Edit("constant", holder, key, ast.Constant(_other(value)))
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield _Edit("min or max", node, "id", NAMES[name])
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in NAMES:
            yield _Edit("min or max", node, "attr", NAMES[name])
        case ast.Slice():
            yield from _of_slice(node)
    yield from _of_condition(holder, key, node)


def _of_condition(holder: Any, key: Any, node: ast.AST) -> Iterator[_Edit]:
    """Edits that the place of a node calls for: conditions, and what is returned."""
    negated = ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]
    plain = not isinstance(node, (ast.Compare, ast.BoolOp, ast.UnaryOp))
    if key == "test" and isinstance(holder, (ast.If, ast.IfExp, ast.While)) and plain:
        yield _Edit("boolean", holder, key, negated)
    if key == "value" and isinstance(holder, ast.Return):
        truth = isinstance(node, (ast.Compare, ast.BoolOp, ast.UnaryOp))
        if _is_text(node):
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield _Edit("return value", holder, key, ast.Constant(not node.value))
        elif not (isinstance(node, ast.Constant) and node.value is None):
            yield _Edit("return value", holder, key, negated if truth else ast.Constant(None))


def _of_slice(node: ast.Slice) -> Iterator[_Edit]:
    """Bounds one off; where a bound is a number its constant is an edit of its own."""
    if node.lower is None:
        yield _Edit("slice", node, "lower", ast.Constant(1))
    elif not _number(node.lower):
        yield _Edit("slice", node, "lower", ast.BinOp(node.lower, ast.Add(), ast.Constant(1)))
    if node.upper is None:
        yield _Edit("slice", node, "upper", ast.UnaryOp(ast.USub(), ast.Constant(1)))
    elif not _number(node.upper):
        yield _Edit("slice", node, "upper", ast.BinOp(node.upper, ast.Add(), ast.Constant(1)))


def _number(node: ast.AST) -> bool:
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


def _other(value: float) -> float:
    """Another number of the same type; infinities stay."""
    if isinstance(value, int):
        return 1 - value if value in (0, 1) else value + 1
    return value * 1.1 if value else 1.0


def _text(node: ast.BinOp) -> bool:
    """Whether an operand is text."""
    return _is_text(node.left) or _is_text(node.right)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
