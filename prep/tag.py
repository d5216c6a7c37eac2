"""Tag: score every picture with a tagger, keep the raw scores, and compile the captions from them."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from prep.caption import Caption
from prep.images import PictureError, find_pictures, load
from prep.item import Item, Store
from prep.options import given_values, option, parameters
from prep.project import Place
from prep.scores import Model, ScoreStore, UnsoundScores, picture_key
from prep.step import EXECUTORS, ParallelStep
from prep.taggers import TAGGERS, Located, Tagger, locate

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

CPU = "CPUExecutionProvider"
UNSCORED = "no_scores"  # the reason of a picture to which the tagger gives no sound ones; the next run tries again
# Pictures scored between two writes on a CPU, where a pass takes one picture: few, so that decoding goes on while the model runs.
AT_ONCE = 4
# How far threads that decode step back behind the model on a CPU (nice of Linux, which counts for each thread). Measured on two cores,
# ViT-B 448, 20 JPEGs of 12 megapixels, pace over the bare model's, two rounds, always in this order: 0.910 and 0.915 at 0, 0.926 and 0.932
# at 5, 0.945 and 0.962 at 10. Not settled: 48 pictures at 10 gave 0.920 and 0.930, and there nothing was run at 0 to compare.
STEP_BACK = 10


class Opened(NamedTuple):
    """A tagger ready for one folder, and its place in the folder's scores."""

    located: Located
    tagger: Tagger


@dataclass(frozen=True)
class Tag(ParallelStep):
    """Score every picture with a tagger and write its tags beside it, as NAME.txt.

    Scores are kept: pictures that have them are not scored again, and `prep caption` compiles other captions from them in seconds.
    The pictures themselves are never changed, and captions written by hand stay.
    """

    tagger: str = option("pocket", help=f"Which tagger: {', '.join(TAGGERS)}, or a folder with a model in ONNX and the list of its tags.")
    device: str = option("auto", help="Where the tagger runs; cuda is an error where it cannot.", choices=("auto", "cpu", "cuda"))
    gpu_ids: str = option("", help="Which GPUs, such as 0,1; all if empty.", matters=False)
    batch_size: int = option(16, "-b", help="Pictures per forward pass on a GPU; a CPU takes them one by one.", min=1, max=1024, matters=False)
    precision: str = option("fp32", help="fp16 for GPUs, int8 for CPUs; says which tags flip.", choices=("fp32", "fp16", "int8"))
    readers: int = option(0, help="Pictures decoded at once; 0 = one for each core.", min=0, max=256, matters=False)
    offline: bool = option(False, help="Never ask the hub: use what is on this machine.", matters=False)
    accept_licence: bool = option(False, help="Fetch a tagger whose licence binds what is built from it, such as camie-v2 (GPL-3.0).", matters=False)

    executor: str = option("here", help="Where the work is done; here, threads decode while the model runs.", choices=EXECUTORS, matters=False)

    @property
    def batch(self) -> int:
        """Here the size is the user's."""
        return self.batch_size

    @property
    def gpus(self) -> int:
        return int(self.device == "cuda")

    @cached_property
    def _ready(self) -> dict[Path, Opened]:
        return {}

    def opened(self, store: Store) -> Opened:
        """Return the tagger, in the precision that was asked for, ready for the pictures of a folder."""
        if store.hidden not in self._ready:
            located = locate(self.tagger, self.offline, self.accept_licence)
            if self.precision != "fp32":
                from prep.taggers.precision import SAMPLE, lighter

                samples = filter(None, map(_readable, _spread(find_pictures(store.folder), 2 * SAMPLE)))
                located, flips = lighter(located, self.precision, store.hidden / "models", samples)
                click.echo(flips, err=True)
            device = "cpu" if self.precision == "int8" and self.device == "auto" else self.device
            self._ready[store.hidden] = Opened(located, located.open(device, self.batch_size, self.gpu_ids))
        return self._ready[store.hidden]

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        """Score the stream: some threads decode what comes next while the model runs, unless an executor has it done elsewhere."""
        if self.executor != "here":
            yield from super().__call__(items, store)
            return
        opened = self.opened(store)
        readers = self.readers or _cores()
        with ScoreStore.open(store.hidden, shard=self.shard) as scores, ThreadPoolExecutor(readers) as pool:
            model = self._register(scores, opened)
            seen = ahead(((item, self._look(item, scores, model, opened.tagger, pool)) for item in items), self.batch_size + 2 * readers)
            try:
                for group in self._groups(seen, opened.tagger):
                    yield from self._finished(group, scores, model, opened.tagger, store)
            finally:
                pool.shutdown(cancel_futures=True)

    def todo(self, batch: list[Item]) -> list[Item]:
        """Pick what is not set aside; a picture that got no scores the last time gets another chance."""
        for item in batch:
            if item.dropped == UNSCORED:
                item.drop("")
        return super().todo(batch)

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        """Score one batch, here and now; executors use this."""
        opened = self.opened(store)
        with ScoreStore.open(store.hidden, shard=self.shard) as scores:
            model = self._register(scores, opened)
            todo = [item for item in batch if not _known(item, scores, model)]
            self._score([(item, _prepared(item, scores, model, opened.tagger)) for item in todo], scores, model, opened.tagger)
        return batch

    def _register(self, scores: ScoreStore, opened: Opened) -> Model:
        return scores.register(self.tagger, opened.located.identity, opened.tagger.version, opened.tagger.labels)

    def _look(self, item: Item, scores: ScoreStore, model: Model, tagger: Tagger, pool: ThreadPoolExecutor) -> Future[Any] | None:
        """Start to decode a picture that has to be; those set aside and those known pass by."""
        if not self.todo([item]) or _known(item, scores, model):
            return None
        return pool.submit(_prepared_aside, item, scores, model, tagger)

    def _groups(self, seen: Iterable[tuple[Item, Future[Any] | None]], tagger: Tagger) -> Iterator[list[tuple[Item, Future[Any] | None]]]:
        """Cut the stream so that each piece has one pass's worth of pictures to score, and none grows without end."""
        group: list[tuple[Item, Future[Any] | None]] = []
        waiting = 0
        for item, future in seen:
            group.append((item, future))
            waiting += future is not None
            # Until the first picture is prepared the model is not loaded, so where it runs is not known.
            size = min(self.batch_size, AT_ONCE) if tagger.provider in ("", CPU) else self.batch_size
            if waiting >= size or len(group) >= 8 * self.batch_size:
                yield group
                group, waiting = [], 0
        yield group

    def _finished(
        self, group: list[tuple[Item, Future[Any] | None]], scores: ScoreStore, model: Model, tagger: Tagger, store: Store
    ) -> Iterator[Item]:
        """Score a group and remember it; a picture that cannot be decoded is set aside."""
        prepared = []
        for item, future in group:
            try:
                if future is not None:
                    prepared.append((item, future.result()))
            except PictureError as error:
                item.drop(error.reason, str(error))
        self._score(prepared, scores, model, tagger)
        for item, future in group:
            if future is not None:
                self.remember(item, store)
            yield item

    def _score(self, prepared: Sequence[tuple[Item, np.ndarray | None]], scores: ScoreStore, model: Model, tagger: Tagger) -> None:
        """Score pictures that are prepared, equal ones once, and keep the scores; one that gets no sound ones is set aside.

        Raises UnsoundScores if the model has given none at all, to this folder's other pictures either.
        """
        fresh = {picture_key(item.picture_digest, item.crop): pixels for item, pixels in prepared if pixels is not None}
        try:
            _keep(fresh, scores, model, tagger)
        except UnsoundScores:
            unsound = _without(fresh, scores, model, tagger)
            if not scores.any(model):
                raise
            for item, _ in prepared:
                if picture_key(item.picture_digest, item.crop) in unsound:
                    item.drop(UNSCORED, f"{self.tagger} gives it scores that are not between 0 and 1")

    def finish(self, place: Place, store: Store) -> None:
        if self.shard:
            with ScoreStore.open(store.hidden, shard=self.shard) as scores:
                scores.complete()
        provider = self.opened(store).tagger.provider
        if provider:
            click.echo(f"{self.tagger} ran on {provider.removesuffix('ExecutionProvider')}", err=True)

    def main(self, place: Place) -> None:
        self.tag_and_caption(place, {})

    def tag_and_caption(self, place: Place, given: Mapping[str, Any]) -> None:
        """Score the folder's pictures and compile their captions; `given` are settings of `prep caption`."""
        from prep.run import run_steps

        run_steps(place, [self, Caption.configured(place, {**given, "tagger": self.tagger})])

    @classmethod
    def command(cls, name: str) -> click.Command:
        """Make the command with the options of `prep caption` added, because tagging ends in captions."""
        command = super().command(name)
        own = {parameter.name for parameter in command.params} | {"diff"}
        command.params += [parameter for parameter in parameters(Caption) if parameter.name not in own]

        def callback(root: Path | None, **_: Any) -> None:
            context, place = click.get_current_context(), Place.open(root)
            cls.configured(place, given_values(context, cls)).tag_and_caption(place, given_values(context, Caption))

        command.callback = callback
        return command


def ahead(stream: Iterator[Any], count: int) -> Iterator[Any]:
    """Draw `count` of a stream before they are wanted, so that what drawing starts goes on meanwhile."""
    drawn = deque(islice(stream, count))
    while drawn:
        yield drawn.popleft()
        drawn.extend(islice(stream, 1))


def _known(item: Item, scores: ScoreStore, model: Model) -> bool:
    """Tell without decoding whether the picture as it now lies there has scores."""
    return item.stamps.get("tag") == _state(item.picture) and scores.has(picture_key(item.picture_digest, item.crop), model)


def _keep(fresh: Mapping[str, np.ndarray], scores: ScoreStore, model: Model, tagger: Tagger) -> None:
    """Score pictures, key -> pixels, and keep the scores."""
    if fresh:
        scores.put(model, dict(zip(fresh, tagger.score(list(fresh.values())), strict=True)))


def _without(fresh: Mapping[str, np.ndarray], scores: ScoreStore, model: Model, tagger: Tagger) -> set[str]:
    """Score pictures one by one, keep the scores, and return the keys of those that get no sound ones."""
    found = set()
    for key, pixels in fresh.items():
        try:
            _keep({key: pixels}, scores, model, tagger)
        except UnsoundScores:
            found.add(key)
    return found


def _prepared(item: Item, scores: ScoreStore, model: Model, tagger: Tagger) -> np.ndarray | None:
    """Decode a picture, note its digest, and return what the tagger takes, or None if its pixels have been scored before."""
    state, image = _state(item.picture), load(item.picture)
    item.see(image)
    item.stamps["tag"] = state
    if scores.has(picture_key(item.picture_digest, item.crop), model):
        return None
    return tagger.prepare(image.crop(item.crop) if item.crop else image)


def _prepared_aside(item: Item, scores: ScoreStore, model: Model, tagger: Tagger) -> np.ndarray | None:
    """Do as `_prepared` in a thread of the pool, which steps back once the model is loaded: its own threads inherit the rank of who loads it."""
    if tagger.provider == CPU:
        step_back()
    return _prepared(item, scores, model, tagger)


def step_back() -> None:
    """Let this thread have only what the model's threads leave of the cores; where a thread has no priority of its own, nothing changes.

    The model's threads wait for each other at every layer, and with equal rights they would also wait for decoders.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) < STEP_BACK:  # one that was started lower stays there: going up needs rights
            os.setpriority(os.PRIO_PROCESS, thread, STEP_BACK)


def _readable(path: Path) -> Image.Image | None:
    try:
        return load(path)
    except PictureError:
        return None


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return at most `count` paths, evenly spread."""
    return [paths[index * len(paths) // count] for index in range(count)] if len(paths) > count else list(paths)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _state(path: Path) -> str:
    """Return what changes when a file does, as far as can be told without reading it."""
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"
