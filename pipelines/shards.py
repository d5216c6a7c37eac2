"""Shards: a folder's pictures dealt out to machines that do not talk to each other, such as the tasks of a Slurm array.

Each machine works on its share of the pictures in the shared folder. What belongs to whom follows from the pictures' keys alone, so it
is the same on every machine, at every time, and however far the others are.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from prep.item import Item
from prep.options import UserError


def share(items: Iterable[Item], shard: str) -> Iterator[Item]:
    """Pass on the items of a shard, "3/16" or "auto"; all of them if it is empty."""
    if not shard:
        yield from items
        return
    index, count = parse(shard)
    yield from (item for item in items if shard_of(item.parent or item.key, count) == index)


def shard_of(key: str, count: int) -> int:
    """Return which of `count` shards, from 0, a picture belongs to; pictures cut out of one stay with it."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") % count


def parse(shard: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Read "3/16" (the third of sixteen) as (2, 16), and "auto" from the variables that Slurm sets for a task of an array."""
    if shard == "auto":
        try:
            first, task, count = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("MIN", "ID", "COUNT"))
        except (KeyError, ValueError):
            raise UserError("--shard auto reads SLURM_ARRAY_TASK_ID, and this is no task of a Slurm array; give --shard 1/4, for instance") from None
        return task - first, count
    match = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)", shard)
    if not match or int(match[1]) > int(match[2]):
        raise UserError(f"--shard {shard} is not I/K, such as 1/4 … 4/4, nor auto")
    return int(match[1]) - 1, int(match[2])
