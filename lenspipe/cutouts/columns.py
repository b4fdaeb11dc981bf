"""Which columns of the catalogue a reader takes, and what each must hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from lenspipe.errors import HopelessError


class Kind(StrEnum):
    """What a column holds, in the user's words. NAME: whatever a name can be made of."""

    WHOLE = "whole numbers"
    NUMBER = "numbers"
    TEXT = "text"
    NAME = "text or numbers"

    def holds(self, kind: pa.DataType) -> bool:
        """Whether a column of this Arrow type will do."""
        if pa.types.is_dictionary(kind) and self in (Kind.TEXT, Kind.NAME):
            kind = kind.value_type
        whole = pa.types.is_integer(kind)
        if self is Kind.WHOLE:
            return bool(whole)
        if self is Kind.NUMBER:
            return bool(whole or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
        if self is Kind.TEXT:
            texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
            return any(is_text(kind) for is_text in texts)
        return not pa.types.is_nested(kind)


@dataclass(frozen=True)
class NeededColumn:
    """A column that a reader takes. field: the key of the survey file that names it."""

    field: str
    name: str
    kind: Kind

    def require(self, schema: pa.Schema) -> None:
        """HopelessError where the catalogue has no such column, or one of another kind."""
        if self.name not in schema.names:
            raise HopelessError(self.field, f"a catalogue column {self.name}", "no such column")
        found = schema.field(self.name).type
        if not self.kind.holds(found):
            raise HopelessError(self.field, f"{self.kind} in column {self.name}", found)


def carried_names(columns: Iterable[NeededColumn]) -> frozenset[str]:
    """Names beside that of the source, which every table has."""
    return frozenset(column.name for column in columns) - {"object_id"}
