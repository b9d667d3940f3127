"""Which reader this process is: its rank, and its worker's number."""

from __future__ import annotations

import os

import torch.distributed
from torch.utils.data import get_worker_info

from ..errors import InvalidArgument


def rank_and_world() -> tuple[int, int]:
    """From `torch.distributed` where it is initialised, else from RANK and WORLD_SIZE; alone: 0 of 1."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    try:
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    except ValueError:
        raise InvalidArgument(f"RANK={os.environ.get('RANK')!r} and WORLD_SIZE={os.environ.get('WORLD_SIZE')!r} are not numbers") from None
    if not 0 <= rank < world:
        raise InvalidArgument(f"RANK={rank} is none of WORLD_SIZE={world} ranks")
    return rank, world


def worker_and_count() -> tuple[int, int]:
    """The DataLoader's worker that this process is, of how many; outside of one: 0 of 1."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def in_worker() -> bool:
    """Whether this process is a DataLoader's worker."""
    return get_worker_info() is not None
