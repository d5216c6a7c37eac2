"""Step: a command over pictures, written as a generator of items so that chains stream and resume."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from prep.images import PictureError, load
from prep.item import Item
from prep.options import UserError, load_object, option, settings_of
from prep.project import Command, Place
from prep.store import Store

T = TypeVar("T")
EXECUTORS = "pipelines.executors:EXECUTORS"  # by name: prep does not know pipelines
DAMAGED = ("unreadable", "truncated", "empty_file", "too_large", "needs_package")  # the reasons of a PictureError


class Step(Command):
    """A command that works item by item; a subclass writes `apply`, and `inputs` if its work is worth remembering."""

    writes: ClassVar[bool] = True  # False: the step only looks, sidecars stay as they are

    @property
    def pictured(self) -> bool:
        """Say whether what the step decides about pictures is to be seen in report.html."""
        return False

    @property
    def part(self) -> str:
        """Say which share of the pictures is worked on, "" = all; see pipelines.shards."""
        return ""

    @property
    def gpus(self) -> int:
        """Say how many GPUs a worker needs."""
        return 0

    @property
    def batch(self) -> int:
        """Say how many items `apply` is handed at once; a subclass may set a number, or a property of its own."""
        return 16

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        """Work on kept items and give back what goes on; an item that must not is given back dropped."""
        raise UserError(f"{type(self).__name__} has nothing to do")

    def inputs(self, item: Item) -> Any:
        """Say what, beside the options, the result for this item depends on; None = cheap, done every time."""
        return None

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        """Stream items through `work`, here or wherever the step's executor has it done."""
        for batch in batched(items, self.batch):
            yield from self.work(batch, store)

    def todo(self, batch: list[Item]) -> list[Item]:
        """Pick the items that need work: not those set aside, and not those done with the same options and inputs."""
        return [item for item in batch if not item.dropped and self.stamp(item) != item.stamps.get(self.table(), "")]

    def work(self, batch: list[Item], store: Store) -> Iterator[Item]:
        """Apply the step to what needs it, and remember what was done; the others pass by."""
        todo = self.todo(batch)
        waiting = {id(item) for item in todo}
        yield from (item for item in batch if id(item) not in waiting)
        for item in self._apply_each(todo, store):
            self.remember(item, store)
            yield item

    def stamp(self, item: Item) -> str | None:
        """Return the fingerprint of options and inputs, or None for a step that is done every time."""
        inputs = self.inputs(item)
        if inputs is None:
            return None
        options = {s.field: getattr(self, s.field) for s in settings_of(type(self)) if s.meta["matters"]}
        text = json.dumps([self.table(), options, inputs], default=str, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

    def remember(self, item: Item, store: Store) -> None:
        """Stamp the item and write its sidecar."""
        stamp = self.stamp(item)
        if stamp is not None:
            item.stamps[self.table()] = stamp
        if self.writes:
            store.save(item)

    def _apply_each(self, todo: list[Item], store: Store) -> Iterator[Item]:
        """Apply to the batch; if a picture in it is bad, go one by one so that only that one is set aside."""
        if not todo:
            return
        try:
            yield from list(self.apply(todo, store))
        except PictureError:
            for item in todo:
                try:
                    yield from list(self.apply([item], store))
                except PictureError as error:
                    item.drop(error.reason, str(error))
                    yield item

    def read(self, place: Place, store: Store) -> Iterator[Item]:
        """Yield the items to work on: those of the folder, a mended picture among them; `clean` reads the raw folder instead."""
        for item in store.items():
            if item.dropped in DAMAGED and item.path.parent == Path(os.path.abspath(store.folder)) and _sound(item.path):
                item.drop("")
                store.save(item)
            yield item

    def nothing(self, place: Place) -> str:
        """Say in a sentence that there is nothing to read, and what to do."""
        hint = "; `prep clean` fills it from the raw pictures" if place.is_project else ""
        return f"there are no pictures in {place.work}{hint}"

    def finish(self, place: Place, store: Store) -> None:
        """Do what can only be done when every item has passed: a ledger, a table, a final error."""

    def store(self, place: Place) -> Store:
        """Say where the step's pictures and sidecars live."""
        return Store(place.work)

    def main(self, place: Place) -> None:
        from prep.run import run_steps

        run_steps(place, [self])


@dataclass(frozen=True, kw_only=True)
class ParallelStep(Step):
    """A step whose batches do not depend on each other, so that all cores, or all machines of a cluster, can work on them."""

    workers: int = option(0, help="How many share the work; 0 = one for each core.", min=0, max=1024, matters=False)
    executor: str = option("processes", help="Where the work is done.", choices=EXECUTORS, matters=False)
    shard: str = option("", help="Work on a share of the pictures: I/K, or auto in a Slurm array.", matters=False)

    @property
    def part(self) -> str:
        return self.shard

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        execute = load_object(load_object(EXECUTORS)[self.executor])
        return execute(self, items, store, self.workers)


def _sound(picture: Path) -> bool:
    try:
        load(picture)
    except PictureError:
        return False
    return True


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
