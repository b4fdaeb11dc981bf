"""What graders are shown: objects by names that tell nothing, in each grader's order."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa

from lenspipe.errors import InputError
from lenspipe.serve.grades.event import ObjectId
from lenspipe.serve.grades.order import order_for, wanted_hidden
from lenspipe.serve.stamps import Image, Stamps
from lenspipe.serve.training_images import TrainingImages

_ORDERS = 64  # of graders that are kept


@dataclass(frozen=True)
class Manner:
    """How objects are shown. blind: no scores, and each grader in an order of their own by the
    seed. hidden_rate: fraction of what is shown that are training objects."""

    blind: bool = False
    seed: int = 0
    hidden_rate: float = 0.05


class Shown:
    """The candidates, and training images among them, as graders see them.

    images: of known truth; `manner.hidden_rate` says how many of them are shown. Candidates whose
    truth is known are shown where they are.

    Their names in pages are keyed hashes, the same after a restart: a page that is open goes on,
    and none tells whether an object is a candidate, where it ranks or what it is.
    """

    def __init__(
        self,
        candidates: pa.Table,
        stamps: Stamps,
        manner: Manner,
        secret: bytes,
        images: TrainingImages | None = None,
    ) -> None:
        self.manner = manner
        self._stamps, self._images, self._secret = stamps, images, secret
        self._hidden = [] if images is None else [each.object_id for each in images.hidden]
        ids: list[ObjectId] = candidates["object_id"].to_pylist()
        scores: list[float] = candidates["score"].to_pylist()
        self._rank = {object_id: rank for rank, object_id in enumerate(ids, 1)}
        self._scores = dict(zip(ids, scores, strict=True))
        self.order = lru_cache(_ORDERS)(self._order)

    def _order(self, grader: str) -> list[ObjectId]:
        return order_for(
            grader,
            self.manner.seed,
            self._scores,
            blind=self.manner.blind,
            hidden=self._hidden,
            hidden_rate=self.manner.hidden_rate,
        )

    def shortage(self) -> str | None:
        """What to say where there are fewer training images than `hidden_rate` asks for."""
        images, candidates, rate = len(self._hidden), len(self._rank), self.manner.hidden_rate
        wanted = wanted_hidden(candidates, rate)
        if self._images is None or images >= wanted:
            return None
        share = 100.0 * images / (images + candidates)
        return f"{images} are {share:.2g}% of what is shown; {100.0 * rate:g}% would take {wanted}"

    @cached_property
    def identity(self) -> str:
        """The same wherever objects have the same names: a page tells by it whether what it still
        has to send is meant for this service."""
        return self._hashed("run")

    def name_of(self, object_id: ObjectId) -> str:
        """The object's name in pages."""
        return self._hashed(f"{'i' if isinstance(object_id, int) else 't'}{object_id}")

    def object_of(self, name: str) -> ObjectId:
        """The object of that name; InputError where there is none."""
        found: ObjectId | None = self._by_name.get(name)
        if found is None:
            raise InputError("object", "an object that is shown", repr(name[:80]))
        return found

    def image(self, name: str) -> Image:
        """Pixels of the object of that name in pages; InputError where there is none."""
        object_id = self.object_of(name)
        if self._images is not None and object_id in self._images:
            return self._images.image(object_id)
        return self._stamps.image(self._rank[object_id])

    def rank_of(self, object_id: ObjectId) -> int | None:
        """Its place among the candidates, from 1; None of a training image."""
        return self._rank.get(object_id)

    def _hashed(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:24]

    def place_of(self, grader: str, object_id: ObjectId) -> int | None:
        """Its place in a grader's order, from 0; None of one that is not shown."""
        order = self.order(grader)
        return order.index(object_id) if object_id in order else None

    @cached_property
    def _by_name(self) -> dict[str, Any]:
        return {self.name_of(object_id): object_id for object_id in (*self._rank, *self._hidden)}
