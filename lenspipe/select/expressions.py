"""One cut as a vetted SQL expression: what it may say, which columns it names, its type.

The text is parsed by DuckDB, never by hand; only nodes and functions listed here pass, and what is
run later is written out again from the vetted tree.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from functools import cache
from typing import Any

import duckdb

from lenspipe.errors import InputError

Node = dict[str, Any]

MAX_LENGTH = 10_000  # characters of one expression
MAX_NESTED_COMPARISONS = 8
# Levels of one expression: Python's stack has room for several times as many, here, in a pickle
# of the cut and where a worker evaluates it.
MAX_DEPTH = 100


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLACES = ("query_location", "query_location_length")
_CLASSES = _words("COLUMN_REF CONSTANT COMPARISON CONJUNCTION BETWEEN OPERATOR FUNCTION CAST CASE")
_OPERATORS = _words(
    "COMPARE_IN COMPARE_NOT_IN OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL "
    "OPERATOR_COALESCE OPERATOR_NULLIF"
)
_ARITHMETIC = _words("+ - * / // % ** ^ & | << >> xor ~")
_MEETING_OPERATORS = _words("OPERATOR_COALESCE OPERATOR_NULLIF")
_MEETING_FUNCTIONS = _ARITHMETIC | _words("greatest least nullif ifnull coalesce")
# Deterministic, of one row, and with a result no larger than what goes in.
_FUNCTIONS = _ARITHMETIC | _words(
    "abs sqrt cbrt exp ln log log2 log10 pow power sin cos tan asin acos atan atan2 sinh cosh tanh "
    "radians degrees pi floor ceil ceiling round trunc sign greatest least nullif ifnull coalesce "
    "isnan isinf isfinite bit_count lower upper trim ltrim rtrim length strlen substr substring "
    "left right starts_with prefix ends_with suffix contains ~~ !~~ ~~* !~~* like_escape "
    "regexp_matches regexp_full_match year month day"
)
_NUMBERS = _words(
    "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT "
    "FLOAT DOUBLE DECIMAL"
)
_KINDS = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "LAMBDA": "a lambda",
}


def parse(field: str, text: str, connection: duckdb.DuckDBPyConnection) -> Node:
    """Tree of one expression; InputError(field) where `text` is not exactly one."""
    if not text.strip() or len(text) > MAX_LENGTH:
        raise InputError(field, f"an expression of 1 to {MAX_LENGTH} characters", f"{len(text)}")
    # In brackets, so that it is no more than an expression; and as it stands, so that its own
    # brackets are in balance.
    for sql in (f"SELECT (\n{text}\n)", f"SELECT \n{text}\n"):
        expression = _only_expression(field, text, _serialise(connection, sql))
    if expression.get("alias"):
        raise InputError(field, "an expression without an alias", repr(expression["alias"]))
    _vet(field, expression)
    return expression


def write(tree: Node, connection: duckdb.DuckDBPyConnection) -> str:
    """SQL text of a tree."""
    statement = _select_one()
    statement["statements"][0]["node"]["select_list"] = [tree]
    text = _value(connection, "SELECT json_deserialize_sql(?)", json.dumps(statement))
    return text.removeprefix("SELECT ")


def canonical(tree: Node) -> Any:
    """The tree without its places in the text: equal for equal expressions."""
    return _without(tree, _PLACES)


def column_nodes(tree: Node) -> Iterator[Node]:
    """Every column reference of a tree."""
    if tree["class"] == "COLUMN_REF":
        yield tree
    for child in children(tree):
        yield from column_nodes(child)


def check_depth(field: str, tree: Node) -> None:
    """InputError where the tree has more levels than MAX_DEPTH. Itself it has no recursion."""
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in children(node)]
    if depth > MAX_DEPTH:
        raise InputError(field, f"an expression of at most {MAX_DEPTH} levels", depth)


def children(node: Node) -> list[Node]:
    """Expressions directly below `node`, in the order of the text."""
    found: list[Node] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if "class" in value:
                if value["class"] != "TYPE":
                    found.append(value)
                return
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                collect(item)

    collect(list(node.values()))
    return found


def match_column(field: str, name: str, known: Sequence[str]) -> str:
    """The catalogue's name for `name`: exact, else the only one that differs in case alone."""
    if name in known:
        return name
    folded = [column for column in known if column.lower() == name.lower()]
    if len(folded) == 1:
        return folded[0]
    near = folded or difflib.get_close_matches(name, known, n=4, cutoff=0.5) or list(known)[:8]
    raise InputError(field, f"a column of the catalogue (near: {', '.join(near)})", repr(name))


def check_comparisons(
    field: str, tree: Node, type_of: Callable[[Node], str], show: Callable[[Node], str]
) -> None:
    """InputError where text meets numbers: DuckDB would convert one of them without a word."""
    for node in _walk(tree):
        operands = _compared(node)
        kinds = {_kind(type_of(operand)): operand for operand in operands}
        if {"text", "number"} <= kinds.keys():
            text, number = show(kinds["text"]), show(kinds["number"])
            raise InputError(
                field, "text compared with text, numbers with numbers", f"{text} with {number}"
            )


def guard_comparisons(
    field: str,
    tree: Node,
    type_of: Callable[[Node], str],
    connection: duckdb.DuckDBPyConnection,
) -> Node:
    """The tree with each computed float side of a comparison NULL where it is not finite.

    DuckDB orders NaN above every number, so that `g / r > 1` would hold where both are 0. One sum,
    difference or product of finite numbers is never NaN, and is left as it is: guards cost time.
    """
    template = _expressions(_serialise(connection, "SELECT CASE WHEN isfinite(x) THEN x END"))[0]
    if _nesting(tree) > MAX_NESTED_COMPARISONS:  # each level doubles the text
        found = f"{_nesting(tree)} levels"
        raise InputError(field, f"at most {MAX_NESTED_COMPARISONS} nested comparisons", found)
    return _guarded(tree, type_of, template)


def _nesting(node: Node) -> int:
    deepest = max((_nesting(child) for child in children(node)), default=0)
    return deepest + (1 if _compares(node) else 0)


def _guarded(tree: Node, type_of: Callable[[Node], str], template: Node) -> Node:
    """A copy of `tree`, its comparisons guarded from the innermost out."""
    node = copy.deepcopy(tree)
    for child, original in zip(children(node), children(tree), strict=True):
        value = _guarded(original, type_of, template)
        needed = _compares(tree) and not is_safe(original)
        if needed and type_of(original) in ("FLOAT", "DOUBLE"):
            value = _substitute(template, value)
        child.clear()
        child.update(value)
    return node


def is_safe(node: Node) -> bool:
    """Whether finite numbers in `node` never give NaN: a leaf, or one sum, difference, product."""
    leaves = ("COLUMN_REF", "CONSTANT")
    if node["class"] == "FUNCTION" and node["function_name"] in ("+", "-", "*", "abs"):
        return all(child["class"] in leaves for child in children(node))
    return node["class"] in leaves


def constant_parts(tree: Node, unknown: Callable[[Node], Node]) -> Iterator[Node]:
    """What of a tree says the same whatever the rows hold: computed constants, and each node that
    takes constants beside columns, with `unknown` of what it takes of columns in its place."""
    for node in _walk(tree):
        if not _has_columns(node):
            continue
        parts = children(node)
        constant = [part for part in parts if not _has_columns(part)]
        yield from (part for part in constant if part["class"] != "CONSTANT")
        if constant:
            part = copy.deepcopy(node)
            for child, original in zip(children(part), parts, strict=True):
                if _has_columns(original):
                    value = unknown(original)
                    child.clear()
                    child.update(value)
            yield part


def constant_results(tree: Node) -> Iterator[tuple[Node, list[Node]]]:
    """Each CASE and those of its results that are constants, which are brought to its type."""
    for node in _walk(tree):
        if node["class"] == "CASE":
            results = [*(check["then_expr"] for check in node["case_checks"]), node["else_expr"]]
            yield node, [result for result in results if not _has_columns(result)]


def _has_columns(node: Node) -> bool:
    return any(True for _ in column_nodes(node))


def _substitute(template: Node, value: Node) -> Node:
    filled = copy.deepcopy(template)
    for node in list(column_nodes(filled)):
        node.clear()
        node.update(copy.deepcopy(value))
    return filled


def _walk(tree: Node) -> Iterator[Node]:
    """Every node, the innermost first: what is wrong inside explains what is wrong around it."""
    for child in children(tree):
        yield from _walk(child)
    yield tree


def _compared(node: Node) -> list[Node]:
    """Operands that DuckDB brings to one type to compare them; none for any other node."""
    combines = node["type"] in _MEETING_OPERATORS or (
        node["class"] == "FUNCTION" and node["function_name"] in _MEETING_FUNCTIONS
    )
    return children(node) if combines or _compares(node) else []


def _compares(node: Node) -> bool:
    return node["class"] in ("COMPARISON", "BETWEEN") or node["type"] in (
        "COMPARE_IN",
        "COMPARE_NOT_IN",
    )


def _kind(type_name: str) -> str:
    if type_name.startswith(("VARCHAR", "ENUM")):
        return "text"
    return "number" if type_name.partition("(")[0] in _NUMBERS else "other"


def _vet(field: str, node: Node) -> None:
    kind = node["class"]
    if kind not in _CLASSES:
        found = _KINDS.get(kind, kind.lower().replace("_", " "))
        raise InputError(field, "an expression over the columns of one row", found)
    if kind == "OPERATOR" and node["type"] not in _OPERATORS:
        raise InputError(field, "comparisons, arithmetic and listed functions", node["type"])
    if kind == "FUNCTION":
        _vet_function(field, node)
    if kind == "COLUMN_REF" and len(node["column_names"]) != 1:
        raise InputError(field, "plain column names", ".".join(node["column_names"]))
    for child in children(node):
        _vet(field, child)


def _vet_function(field: str, node: Node) -> None:
    name = str(node["function_name"]).lower()
    plain = not any(node.get(key) for key in ("schema", "catalog", "filter", "distinct"))
    if name not in _FUNCTIONS or not plain:
        known = " ".join(sorted(name for name in _FUNCTIONS if name.isalpha()))
        raise InputError(field, f"functions of one row ({known})", f"{name}()")
    if name == "like_escape":
        _vet_escape(field, children(node)[1:])


def _vet_escape(field: str, texts: Sequence[Node]) -> None:
    """Pattern and escape as DuckDB takes them: of others it tells where rows are evaluated only,
    and `TRY` does not catch it."""
    literals = ((node.get("literal") or {}).get("text") for node in texts)
    told = [text for text in literals if isinstance(text, str)]
    if len(told) != 2:
        raise InputError(field, "a pattern and an ESCAPE that are plain texts", "others")
    pattern, escape = told
    if len(escape.encode()) > 1:
        raise InputError(field, "an ESCAPE of one ASCII character", repr(escape))
    # What stands for itself is taken out, with what escapes it.
    if escape and re.sub(f"{re.escape(escape)}.", "", pattern, flags=re.DOTALL).endswith(escape):
        raise InputError(
            field, f"a pattern that does not end in its ESCAPE {escape}", repr(pattern)
        )


def _serialise(connection: duckdb.DuckDBPyConnection, sql: str) -> Node:
    tree: Node = json.loads(_value(connection, "SELECT json_serialize_sql(?)", sql))
    return tree


def _select_one() -> Node:
    tree: Node = json.loads(_select_one_text())
    return tree


@cache
def _select_one_text() -> str:
    with closing(duckdb.connect()) as connection:
        return _value(connection, "SELECT json_serialize_sql(?)", "SELECT 1")


def _value(connection: duckdb.DuckDBPyConnection, query: str, argument: str) -> str:
    [[value]] = connection.execute(query, [argument]).fetchall()
    return str(value)


def _expressions(tree: Node) -> list[Node]:
    if len(tree["statements"]) != 1:
        return []
    expressions: list[Node] = tree["statements"][0]["node"].get("select_list", [])
    return expressions


def _only_expression(field: str, text: str, tree: Node) -> Node:
    """The one thing that a statement selects; InputError where there is more to the statement."""
    if tree.get("error"):
        raise InputError(field, "one SQL expression", tree.get("error_message", "no SQL"))
    expressions = _expressions(tree)
    if len(expressions) != 1 or _frame(tree) != _frame(_select_one()):
        raise InputError(field, "one SQL expression", f"more than that in {text.strip()!r}")
    return expressions[0]


def _frame(tree: Node) -> Any:
    """All of a statement but what it selects and where in the text it stands."""
    return _without(tree, (*_PLACES, "select_list"))


def _without(value: Any, dropped: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, dropped) for key, item in value.items() if key not in dropped}
    return [_without(item, dropped) for item in value] if isinstance(value, list) else value
