"""ADQL 2.1 (https://www.ivoa.net/documents/ADQL/) as DuckDB's SQL: its core, with POINT, CIRCLE,
CONTAINS and DISTANCE.

What is let through is a list of clauses, operators and functions; all else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

import numpy as np
from sqlglot import ErrorLevel, TokenType, exp, parse, parser, tokens
from sqlglot.dialects.dialect import Dialect

from lenspipe.catalogue.cone import Cone
from lenspipe.catalogue.places import HEALPIX
from lenspipe.errors import InputError

Node = TypeVar("Node", bound=exp.Expr)

FIELD = "QUERY"
# Of one query: what takes most of a second to translate.
MAX_LENGTH, MAX_NODES = 20_000, 5000
RUN_SCHEMA, TAP_SCHEMA = "run", "tap_schema"  # schemas of this service
GEOMETRIES = ("POINT", "CIRCLE", "CONTAINS", "DISTANCE", "COORD1", "COORD2")
# ADQL's names of functions that DuckDB has under the same name.
_SAME = frozenset(
    {
        *("ABS", "ACOS", "ASIN", "ATAN", "ATAN2", "COS", "COT", "DEGREES", "EXP", "PI", "POWER"),
        *("RADIANS", "ROUND", "SIN", "SQRT", "TAN", "LOWER", "UPPER", "COALESCE"),
    }
)
_RENAMED = {"CEILING": "ceil", "FLOOR": "floor", "RAND": "random", "MOD": "mod"}
_SETS = frozenset({"COUNT", "SUM", "AVG", "MIN", "MAX"})
# Functions of `lenspipe.catalogue.sky_functions`, beyond ADQL.
OWN = frozenset({"SEPARATION_DEG", "SEPARATION_ARCSEC", "IN_CONE", "HEALPIX", "HEALPIX_PARENT"})
FUNCTIONS = sorted(_SAME | set(_RENAMED) | _SETS | OWN | {"LOG", "LOG10", "TRUNCATE"})
_FRAMES = frozenset({"", "ICRS", "ICRS GEOCENTER", "ICRS BARYCENTER"})
# Ranges of pixels that a cone is looked for in, beside its exact condition; more cost more to
# compare than they spare.
_MOST_RANGES = 12

_CLAUSES: tuple[type[exp.Expr], ...] = (
    exp.Select, exp.From, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit,
    exp.Offset, exp.Distinct, exp.Join, exp.Subquery, exp.Union, exp.Except, exp.Intersect,
    exp.With, exp.CTE, exp.Table, exp.TableAlias, exp.Alias, exp.Column, exp.Identifier, exp.Star,
    exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.Tuple,
)  # fmt: skip
_OPERATORS: tuple[type[exp.Expr], ...] = (
    exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Between,
    exp.In, exp.Like, exp.ILike, exp.Escape, exp.Is, exp.Exists, exp.Add, exp.Sub, exp.Mul,
    exp.Div, exp.Neg, exp.DPipe, exp.Case, exp.If, exp.Cast, exp.DataType, exp.DataTypeParam,
)  # fmt: skip
_TYPES = frozenset(
    {
        *("SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL"),
        *("CHAR", "VARCHAR", "TEXT", "TIMESTAMP", "BOOLEAN"),
    }
)
# Names that DuckDB, in quotes too, takes for functions where no column is called so.
_NO_COLUMNS = frozenset(
    {
        *("current_catalog", "current_date", "current_role", "current_schema", "current_time"),
        *("current_timestamp", "current_user", "localtime", "localtimestamp", "session_user"),
        *("user", "rowid"),
    }
)


class _Adql(Dialect):
    """How ADQL is read: `TOP`, and every function by its name alone."""

    class Tokenizer(tokens.Tokenizer):
        """SQL's, and TOP."""

        KEYWORDS: ClassVar = {**tokens.Tokenizer.KEYWORDS, "TOP": TokenType.TOP}

    class Parser(parser.Parser):
        """Functions stay names: what they mean is told below, not by other dialects."""

        FUNCTIONS: ClassVar = {"COALESCE": exp.Coalesce.from_arg_list}
        NO_PAREN_FUNCTIONS: ClassVar = {}  # no CURRENT_USER and the like
        FUNCTION_PARSERS: ClassVar = {"CAST": parser.Parser.FUNCTION_PARSERS["CAST"]}


def to_duckdb(text: str, healpix_tables: frozenset[str] = frozenset()) -> str:
    """One ADQL query as one of DuckDB.

    healpix_tables: those with a column `healpix_29` beside `ra` and `dec`; a constant cone on them
    reads only what it touches. Tables of TAP_SCHEMA become `tap_schema_<name>`. InputError where
    the text is no such query, or says what is not supported.
    """
    try:
        query = _parsed(text)
        _translate_geometry(query, healpix_tables)
        for table in query.find_all(exp.Table):
            _translate_table(table)
        for column in query.find_all(exp.Column):
            _translate_column(column)
        _translate_functions(query)
        # In quotes no name is a keyword of DuckDB.
        return query.sql("duckdb", comments=False, identify=True)
    except RecursionError as error:
        raise InputError(FIELD, "a query less deeply nested", "one of many levels") from error


def _parsed(text: str) -> exp.Expr:
    if len(text) > MAX_LENGTH:
        raise InputError(FIELD, f"at most {MAX_LENGTH} characters", len(text))
    try:
        found = parse(text, read=_Adql, error_level=ErrorLevel.RAISE)
    except RecursionError:
        raise
    except Exception as error:  # besides its own errors, the parser trips over odd brackets
        raise InputError(FIELD, "one SELECT of ADQL", _said(error)) from error
    queries = [query for query in found if query is not None]
    if len(queries) != 1 or not isinstance(queries[0], (exp.Select, exp.SetOperation)):
        kinds = " and ".join(query.key.upper() for query in queries)
        raise InputError(FIELD, "one SELECT of ADQL", kinds or "nothing")
    for count, node in enumerate(queries[0].walk(), 1):
        if count > MAX_NODES:
            raise InputError(FIELD, f"at most {MAX_NODES} names, numbers and operators", "more")
        _require_known(node)
    return queries[0]


def _require_known(node: exp.Expr) -> None:
    if isinstance(node, exp.DataType):
        if node.this.name not in _TYPES:
            raise InputError(FIELD, f"CAST to one of {', '.join(sorted(_TYPES))}", node.sql())
    elif isinstance(node, exp.Anonymous):
        name = str(node.name).upper()
        if name not in FUNCTIONS and name not in GEOMETRIES:
            known = ", ".join([*GEOMETRIES, *FUNCTIONS])
            raise InputError(FIELD, f"functions out of {known}", f"{node.name}(…)")
    elif not isinstance(node, (*_CLAUSES, *_OPERATORS, exp.Coalesce)):
        raise InputError(FIELD, "the core of ADQL", node.sql()[:80] or node.key.upper())
    if isinstance(node, exp.Table) and not isinstance(node.this, exp.Identifier):
        raise InputError(FIELD, "names of tables after FROM", node.sql()[:80])


def _translate_table(table: exp.Table) -> None:
    if not (table.db or table.catalog):
        return
    _require_schema(table)
    if table.db.lower() == TAP_SCHEMA:
        name = table.name.lower()
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(name)))
        table.set("this", exp.to_identifier(f"{TAP_SCHEMA}_{name}"))
    table.set("db", None)


def _translate_column(column: exp.Column) -> None:
    if not column.table and column.name.lower() in _NO_COLUMNS:
        raise InputError(
            FIELD, f"columns (table.{column.name} where one is called so)", column.name
        )
    if column.db or column.catalog:  # tables lose their schema too
        _require_schema(column)
        column.set("db", None)


def _require_schema(node: exp.Table | exp.Column) -> None:
    """InputError where what a name begins with is no schema of this service."""
    if node.text("catalog") or node.text("db").lower() not in (TAP_SCHEMA, RUN_SCHEMA):
        raise InputError(FIELD, "tables of this service (see /tap/tables)", node.sql()[:80])


def _translate_geometry(query: exp.Expr, healpix_tables: frozenset[str]) -> None:
    for equal in _leaves_first(query, exp.EQ):
        sides = (equal.this, equal.expression)
        called = [side for side in sides if _is_call(side, "CONTAINS")]
        value = [side for side in sides if isinstance(side, exp.Literal) and side.name in "01"]
        if called and value:
            inside = _contains(called[0], healpix_tables)
            equal.replace(inside if value[0].name == "1" else exp.Not(this=exp.Paren(this=inside)))
    for node in _leaves_first(query, exp.Anonymous):
        translate = _GEOMETRY.get(node.name.upper())
        if translate is not None:
            node.replace(translate(node))
    for node in query.find_all(exp.Anonymous):
        if node.name.upper() in GEOMETRIES:
            expected = "POINT and CIRCLE within CONTAINS, DISTANCE, COORD1 or COORD2"
            raise InputError(FIELD, expected, f"{node.name}(…) elsewhere")


def _contains(node: exp.Anonymous, healpix_tables: frozenset[str]) -> exp.Expr:
    point, circle = _arguments(node, 2)
    ra, dec = _point(point)
    ra0, dec0, radius = _circle(circle)
    exact = _call("in_cone", ra, dec, ra0, dec0, radius)
    ranges = _ranges(node, (ra, dec), (ra0, dec0, radius), healpix_tables)
    if ranges is None:
        return exact
    return exp.Paren(this=exp.And(this=ranges, expression=exact))


def _ranges(
    node: exp.Expr,
    point: tuple[exp.Expr, exp.Expr],
    circle: tuple[exp.Expr, exp.Expr, exp.Expr],
    tables: frozenset[str],
) -> exp.Expr | None:
    """A condition on the pixels that a constant cone touches; None where it cannot be told."""
    numbers = [_number(value) for value in circle]
    source = _only_source(node)
    if source is None or source.name.lower() not in tables or any(n is None for n in numbers):
        return None
    if not all(_is_of(c, source, name) for c, name in zip(point, ("ra", "dec"), strict=True)):
        return None
    try:
        found = Cone(*(float(value) for value in numbers if value is not None)).ranges()
    except InputError as error:
        raise InputError(FIELD, error.expected, f"{error.field} {error.found}") from error
    pixel = exp.column(HEALPIX, table=_called(source).copy())
    several = [_between(pixel, low, stop - 1) for low, stop in _fewer(found)]
    hull: exp.Expr = _between(pixel, int(found[0, 0]), int(found[-1, 1]) - 1)
    return exp.and_(hull, exp.or_(*several)) if len(several) > 1 else hull


def _only_source(node: exp.Expr) -> exp.Table | None:
    """The run's table that alone stands after FROM where this is in WHERE, with its own columns."""
    select, where = node.find_ancestor(exp.Select), node.find_ancestor(exp.Where)
    if select is None or where is None or where.parent is not select or select.args.get("joins"):
        return None
    source = getattr(select.args.get("from_"), "this", None)
    if not isinstance(source, exp.Table) or source.alias_column_names or source.args.get("joins"):
        return None
    hidden = {cte.alias.lower() for cte in select.root().find_all(exp.CTE)}
    return (
        None
        if source.name.lower() in hidden or source.db.lower() not in ("", RUN_SCHEMA)
        else source
    )


def _is_of(column: exp.Expr, source: exp.Table, name: str) -> bool:
    if not isinstance(column, exp.Column) or column.name.lower() != name:
        return False
    return column.table.lower() in ("", _called(source).name.lower())


def _called(source: exp.Table) -> exp.Identifier:
    """What columns of a table are qualified by."""
    alias = source.args.get("alias")
    called: exp.Identifier = alias.this if alias and alias.this else source.this
    return called


def _fewer(ranges: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rising ranges joined over the smallest gaps until they are few."""
    gaps = ranges[1:, 0] - ranges[:-1, 1]
    keep = np.sort(np.argsort(-gaps, kind="stable")[: _MOST_RANGES - 1])
    first = np.r_[ranges[0, 0], ranges[keep + 1, 0]]
    stop = np.r_[ranges[keep, 1], ranges[-1, 1]]
    yield from zip(first.tolist(), stop.tolist(), strict=True)


def _between(column: exp.Expr, low: int, high: int) -> exp.Expr:
    ends = (exp.Literal.number(low), exp.Literal.number(high))
    return exp.Between(this=column.copy(), low=ends[0], high=ends[1])


def _contains_value(node: exp.Anonymous) -> exp.Expr:
    return exp.cast(_contains(node, frozenset()), "INTEGER")


def _distance(node: exp.Anonymous) -> exp.Expr:
    arguments = node.expressions
    if len(arguments) == 4:
        return _call("separation_deg", *arguments)
    first, second = _arguments(node, 2)
    return _call("separation_deg", *_point(first), *_point(second))


def _coordinate(index: int) -> Callable[[exp.Anonymous], exp.Expr]:
    def translate(node: exp.Anonymous) -> exp.Expr:
        return exp.Paren(this=_point(_arguments(node, 1)[0])[index].copy())

    return translate


_GEOMETRY: dict[str, Callable[[exp.Anonymous], exp.Expr]] = {
    "CONTAINS": _contains_value,
    "DISTANCE": _distance,
    "COORD1": _coordinate(0),
    "COORD2": _coordinate(1),
}


def _point(node: exp.Expr) -> tuple[exp.Expr, exp.Expr]:
    if not _is_call(node, "POINT"):
        raise InputError(FIELD, "POINT(…)", node.sql()[:80])
    ra, dec = _without_frame(node, 2)
    return ra, dec


def _circle(node: exp.Expr) -> tuple[exp.Expr, exp.Expr, exp.Expr]:
    if not _is_call(node, "CIRCLE"):
        raise InputError(FIELD, "CIRCLE(…), the one region there is", node.sql()[:80])
    if len(node.expressions) in (2, 3) and _is_call(node.expressions[-2], "POINT"):
        return *_point(node.expressions[-2]), node.expressions[-1]
    ra, dec, radius = _without_frame(node, 3)
    return ra, dec, radius


def _without_frame(node: exp.Expr, count: int) -> list[exp.Expr]:
    """Coordinates of a geometry; the frame before them may only be ICRS."""
    values: list[exp.Expr] = list(node.expressions)
    if len(values) == count + 1 and isinstance(values[0], exp.Literal) and values[0].is_string:
        frame = values.pop(0).name
        if frame.strip().upper() not in _FRAMES:
            raise InputError(FIELD, "positions in ICRS", frame)
    if len(values) != count:
        raise InputError(FIELD, f"{count} numbers in {node.name.upper()}", node.sql()[:80])
    return values


def _arguments(node: exp.Expr, count: int) -> list[exp.Expr]:
    if len(node.expressions) != count:
        raise InputError(FIELD, f"{count} arguments of {node.name.upper()}", node.sql()[:80])
    return list(node.expressions)


def _number(node: exp.Expr) -> float | None:
    if isinstance(node, exp.Neg):
        value = _number(node.this)
        return None if value is None else -value
    if isinstance(node, exp.Literal) and not node.is_string:
        return float(node.name)
    return None


def _translate_functions(query: exp.Expr) -> None:
    for node in _leaves_first(query, exp.Anonymous):
        name = node.name.upper()
        if name == "LOG":
            node.set("this", "ln")
        elif name == "TRUNCATE":
            node.replace(_truncated(node))
        elif name == "RAND":
            node.replace(_call("random"))
        elif name in _RENAMED:
            node.set("this", _RENAMED[name])
    for cast in _leaves_first(query, exp.Cast):
        if cast.to.expressions and cast.to.this in exp.DataType.TEXT_TYPES:
            cast.replace(_shortened(cast))
    for ordered in query.find_all(exp.Ordered):
        ordered.set("nulls_first", False)  # ADQL leaves it open; the best scores are asked for


def _shortened(cast: exp.Cast) -> exp.Expr:
    """A cast to CHAR(n) or VARCHAR(n), of whose n DuckDB makes nothing."""
    lengths = [length.this for length in cast.to.expressions]
    if len(lengths) != 1 or lengths[0].is_string or not lengths[0].name.isdecimal():
        raise InputError(FIELD, "one whole number as length of a text", cast.to.sql())
    text = exp.cast(cast.this.copy(), "VARCHAR")
    return _call("left", text, lengths[0])


def _truncated(node: exp.Anonymous) -> exp.Expr:
    value, *places = node.expressions or [None]
    # Places stand twice in what is made of them.
    if value is None or len(places) > 1 or any(_number(count) is None for count in places):
        raise InputError(FIELD, "TRUNCATE(value, a number of places)", node.sql()[:80])
    if not places:
        return _call("trunc", value)
    scale = _call("power", exp.Literal.number(10), places[0])
    scaled = _call("trunc", exp.Mul(this=exp.Paren(this=value.copy()), expression=scale))
    return exp.Paren(this=exp.Div(this=scaled, expression=scale.copy()))


def _leaves_first(query: exp.Expr, kind: type[Node]) -> list[Node]:
    """Nodes of a kind, each after those within it: what takes its place copies what they became."""
    return list(query.find_all(kind))[::-1]


def _call(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])


def _is_call(node: exp.Expr | None, name: str) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.upper() == name


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
