"""Cuts of plain arithmetic and comparisons, evaluated on numpy arrays.

Most cuts are of this kind, and numpy does them several times faster than SQL on an Arrow table.
Only what both do alike is taken (IEEE arithmetic on FLOAT and DOUBLE columns, comparisons, logic);
for anything else `translate` gives None, and DuckDB evaluates the cut.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Shaped

from lenspipe.select.expressions import Node, children, is_safe
from lenspipe.select.measured import known, listed_for, numbers

Mask = Bool[np.ndarray, " n"]
_FLOATS: Mapping[str, type[np.floating[Any]]] = {"FLOAT": np.float32, "DOUBLE": np.float64}
_OPERATIONS: Mapping[tuple[str, int], Callable[..., Shaped[np.ndarray, " n"]]] = {
    ("+", 2): np.add,
    ("-", 2): np.subtract,
    ("*", 2): np.multiply,
    ("/", 2): np.divide,
    ("-", 1): np.negative,
    ("abs", 1): np.abs,
}
_COMPARISONS: Mapping[str, Callable[..., Mask]] = {
    "COMPARE_EQUAL": np.equal,
    "COMPARE_NOTEQUAL": np.not_equal,
    "COMPARE_LESSTHAN": np.less,
    "COMPARE_GREATERTHAN": np.greater,
    "COMPARE_LESSTHANOREQUALTO": np.less_equal,
    "COMPARE_GREATERTHANOREQUALTO": np.greater_equal,
}
_LOGIC = ("CONJUNCTION_AND", "CONJUNCTION_OR")


@dataclass(frozen=True)
class Values:
    """Numbers of some rows. known: where there is one; None: everywhere."""

    numbers: Shaped[np.ndarray, " n"]
    known: Mask | None = None


@dataclass(frozen=True)
class Truth:
    """Three-valued truth of some rows. known: where it is true or false; None: everywhere.

    `true` holds only where `known` does.
    """

    true: Mask
    known: Mask | None = None


class Batch:
    """Columns of some rows, each looked at once."""

    def __init__(self, rows: pa.RecordBatch, missing_values: Sequence[float]) -> None:
        self._rows = rows
        self._missing = missing_values
        self._seen: dict[str, Values] = {}

    def column(self, name: str) -> Values:
        """Numbers of a column, and where they were measured."""
        if name not in self._seen:
            array = self._rows.column(name)
            mask = known(array, listed_for(name, self._missing))
            self._seen[name] = Values(numbers(array), mask)
        return self._seen[name]


class Number(ABC):
    """A number per row."""

    @abstractmethod
    def values(self, batch: Batch) -> Values:
        """Its values in a batch."""


class Condition(ABC):
    """A truth per row."""

    @abstractmethod
    def truth(self, batch: Batch) -> Truth:
        """Its truth in a batch."""


@dataclass(frozen=True)
class _Column(Number):
    name: str

    def values(self, batch: Batch) -> Values:
        return batch.column(self.name)


@dataclass(frozen=True)
class _Constant(Number):
    number: float | int

    def values(self, batch: Batch) -> Values:  # noqa: ARG002  # the same number in every row
        return Values(np.asarray(self.number))


@dataclass(frozen=True)
class _Arithmetic(Number):
    operation: tuple[str, int]
    operands: tuple[Number, ...]
    double: bool

    def values(self, batch: Batch) -> Values:
        kind = np.float64 if self.double else np.float32
        found = [operand.values(batch) for operand in self.operands]
        result = _OPERATIONS[self.operation](*(_as(value, kind) for value in found))
        return Values(result, _all_of([value.known for value in found]))


@dataclass(frozen=True)
class _Finite(Number):
    """A number that is unknown where it is not finite; see `expressions.guard_comparisons`."""

    number: Number

    def values(self, batch: Batch) -> Values:
        found = self.number.values(batch)
        mask = np.isfinite(found.numbers)
        return Values(found.numbers, _all_of([found.known, None if mask.all() else mask]))


@dataclass(frozen=True)
class _Comparison(Condition):
    """kind: type that both sides are brought to; None: integers, which numpy compares exactly."""

    name: str
    left: Number
    right: Number
    kind: str | None

    def truth(self, batch: Batch) -> Truth:
        left, right = self.left.values(batch), self.right.values(batch)
        sides = (
            (left.numbers, _integer(right))
            if self.kind is None
            else (_as(left, _FLOATS[self.kind]), _as(right, _FLOATS[self.kind]))
        )
        mask = _all_of([left.known, right.known])
        true = _COMPARISONS[self.name](*sides)
        return Truth(true if mask is None else true & mask, mask)


@dataclass(frozen=True)
class _Within(Condition):
    """Whether a number lies between two constants, ends included: it is computed once."""

    number: Number
    lower: _Constant
    upper: _Constant
    kind: str

    def truth(self, batch: Batch) -> Truth:
        kind = _FLOATS[self.kind]
        found = self.number.values(batch)
        numbers = _as(found, kind)
        true = numbers >= kind(self.lower.number)
        true &= numbers <= kind(self.upper.number)
        return Truth(true if found.known is None else true & found.known, found.known)


@dataclass(frozen=True)
class _Missing(Condition):
    """Whether a column was not measured (`IS NULL`), or was."""

    column: str
    wanted: bool

    def truth(self, batch: Batch) -> Truth:
        values = batch.column(self.column)
        mask = np.ones(len(values.numbers), bool) if values.known is None else values.known
        return Truth(~mask if self.wanted else mask)


@dataclass(frozen=True)
class _All(Condition):
    """Conjunction in Kleene's logic: false where any part is, whatever the others are."""

    parts: tuple[Condition, ...]

    def truth(self, batch: Batch) -> Truth:
        result, *others = [part.truth(batch) for part in self.parts]
        for other in others:
            result = _both(result, other)
        return result


@dataclass(frozen=True)
class _Not(Condition):
    part: Condition

    def truth(self, batch: Batch) -> Truth:
        return _negated(self.part.truth(batch))


def translate(
    tree: Node,
    fields: Mapping[str, pa.Field],
    type_of: Callable[[Node], str],
    constant: Callable[[Node, str], float | None],
) -> Condition | None:
    """A vetted tree as a condition on arrays; None where only SQL can say it.

    fields: the tree's name of a column -> its field in the catalogue; type_of: DuckDB's type of a
    node; constant: DuckDB's value of a constant after a cast to a type, None of
    NULL.
    """
    try:
        return _Translator(fields, type_of, constant).condition(tree)
    except _NotPlainError:
        return None


class _NotPlainError(Exception):
    """The tree holds something that is left to DuckDB."""


@dataclass(frozen=True)
class _Translator:
    fields: Mapping[str, pa.Field]
    type_of: Callable[[Node], str]
    constant: Callable[[Node, str], float | None]

    def condition(self, node: Node) -> Condition:
        parts = children(node)
        if node["type"] in _LOGIC:
            return self._logic(node["type"], [self.condition(part) for part in parts])
        if node["type"] == "OPERATOR_NOT":
            return _Not(self.condition(parts[0]))
        if node["type"] in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            return _Missing(self._column(parts[0]), node["type"] == "OPERATOR_IS_NULL")
        if node["type"] in _COMPARISONS:
            return self._comparison(node["type"], parts[0], parts[1], parts)
        if node["type"] == "COMPARE_BETWEEN":
            return self._between(parts)
        raise _NotPlainError

    def _between(self, parts: Sequence[Node]) -> Condition:
        value, lower, upper = parts
        low = self._comparison("COMPARE_GREATERTHANOREQUALTO", value, lower, parts)
        high = self._comparison("COMPARE_LESSTHANOREQUALTO", value, upper, parts)
        if (
            low.kind is not None
            and isinstance(low.right, _Constant)
            and isinstance(high.right, _Constant)
        ):
            return _Within(low.left, low.right, high.right, low.kind)
        return _All((low, high))

    def _logic(self, kind: str, parts: list[Condition]) -> Condition:
        if kind == "CONJUNCTION_AND":
            return _All(tuple(parts))
        return _Not(_All(tuple(_Not(part) for part in parts)))  # De Morgan holds in Kleene's logic

    def _comparison(
        self, name: str, left: Node, right: Node, meeting: Sequence[Node]
    ) -> _Comparison:
        types = [self.type_of(node) for node in meeting]
        if any(kind in _FLOATS for kind in types):
            kind = "DOUBLE" if "DOUBLE" in types else "FLOAT"
            return _Comparison(name, self._side(left, kind), self._side(right, kind), kind)
        if right["class"] != "CONSTANT" or not set(types[1:]) <= {"INTEGER", "BIGINT"}:
            raise _NotPlainError
        column = _Column(self._column(left, pa.types.is_signed_integer))
        return _Comparison(name, column, _Constant(int(self._constant(right, "BIGINT"))), None)

    def _side(self, node: Node, kind: str) -> Number:
        number = self._number(node, kind)
        guarded = not is_safe(node) and self.type_of(node) in _FLOATS
        return _Finite(number) if guarded else number

    def _number(self, node: Node, kind: str) -> Number:
        if node["class"] == "CONSTANT":
            return _Constant(self._constant(node, kind))
        if node["class"] == "COLUMN_REF":
            return _Column(self._column(node))
        if node["class"] == "FUNCTION":
            return self._arithmetic(node)
        raise _NotPlainError

    def _constant(self, node: Node, kind: str) -> float:
        """Its value; NULL, which makes all around it unknown, is left to DuckDB."""
        value = self.constant(node, kind)
        if value is None:
            raise _NotPlainError
        return value

    def _arithmetic(self, node: Node) -> Number:
        parts, kind = children(node), self.type_of(node)
        operation = (str(node["function_name"]), len(parts))
        if operation not in _OPERATIONS or kind not in _FLOATS:
            raise _NotPlainError
        # x / 0 is unknown to the end, but 1 / (x / 0) would be 0 here.
        if operation[0] == "/" and parts[1]["class"] == "FUNCTION":
            raise _NotPlainError
        operands = tuple(self._number(part, kind) for part in parts)
        return _Arithmetic(operation, operands, double=kind == "DOUBLE")

    def _column(
        self, node: Node, fits: Callable[[pa.DataType], bool] = pa.types.is_floating
    ) -> str:
        if node["class"] != "COLUMN_REF":
            raise _NotPlainError
        field = self.fields[node["column_names"][0]]
        if not fits(field.type):
            raise _NotPlainError
        return str(field.name)


def _as(values: Values, kind: type[np.floating[Any]]) -> Shaped[np.ndarray, " n"]:
    return values.numbers.astype(kind, copy=False)


def _integer(values: Values) -> int:
    return int(values.numbers)


def _all_of(masks: Sequence[Mask | None]) -> Mask | None:
    """Where all masks hold; None stands for a mask that holds everywhere."""
    result = None
    for mask in masks:
        if mask is not None:
            result = mask if result is None else result & mask
    return result


def _both(a: Truth, b: Truth) -> Truth:
    true = a.true & b.true
    if a.known is None and b.known is None:
        return Truth(true)
    false = _false(a) | _false(b)
    return Truth(true, true | false)


def _negated(truth: Truth) -> Truth:
    return Truth(_false(truth), truth.known)


def _false(truth: Truth) -> Mask:
    return ~truth.true if truth.known is None else truth.known & ~truth.true
