"""One training in several processes, as torch's own launcher starts them.

    torchrun --nproc-per-node 4 -m training train RECIPE

Each process has a GPU of its own (NCCL), or without GPUs a share of the CPUs (gloo).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, distributed, nn

from lenspipe.errors import InputError


@dataclass(frozen=True)
class Group:
    """This process's place among those that train one network. where: its device."""

    where: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that judges and writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with gradients averaged over the group."""
        if self.size == 1:
            return model
        ids = [self.where] if self.where.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def share(self, rows: Int64[Tensor, " batch"]) -> Int64[Tensor, " share"]:
        """This process's part of a batch."""
        return rows[self.rank :: self.size]

    def check_batch(self, batch_size: int) -> None:
        """InputError where a batch cannot be shared evenly: shares would count unequally."""
        if batch_size % self.size:
            raise InputError("batch_size", f"a multiple of {self.size} processes", batch_size)

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the group."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value / self.size

    def told(self, value: Any) -> Any:
        """The leader's value, on every process."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def joined(device: str | None = None) -> Iterator[Group]:
    """The group that the launcher started this process in; a process by itself is a group of one.

    device: `cpu`, `cuda` …; default: a GPU where there is one.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    where = _device(device, size)
    if size == 1:
        yield Group(where)
        return
    mine = not distributed.is_initialized()
    if mine:
        distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Group(where, rank, size)
    finally:
        if mine:
            distributed.destroy_process_group()


def _device(device: str | None, size: int) -> torch.device:
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if size == 1 or where.type != "cuda":
        return where
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own
