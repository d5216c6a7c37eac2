"""Tag: score every picture with a tagger, keep the raw scores, and compile the captions from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from prep.caption import Caption
from prep.images import PictureError, find_pictures, load
from prep.item import Item
from prep.options import given_values, option, parameters
from prep.prepared import CPU, Waiting, ahead, decoded, fresh, known, prepared, prepared_aside, scored, without
from prep.project import Place
from prep.scores import Model, ScoreStore, UnsoundScores, picture_key
from prep.step import EXECUTORS, ParallelStep
from prep.store import Store
from prep.taggers import TAGGERS, Located, Tagger, locate

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

UNSCORED = "no_scores"  # the reason of a picture to which the tagger gives no sound ones; the next run tries again
# Pictures scored between two writes on a CPU, where a pass takes one picture: few, so that decoding goes on while the model runs.
AT_ONCE = 4


class Opened(NamedTuple):
    """A tagger ready for one folder, and its place in the folder's scores."""

    located: Located
    tagger: Tagger


class Kept(NamedTuple):
    """Where a tagger's scores are kept."""

    scores: ScoreStore
    model: Model
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
        with ScoreStore.open(store.hidden, shard=self.shard) as scores, ThreadPoolExecutor(1) as runner, ThreadPoolExecutor(readers) as pool:
            model = self._register(scores, opened)
            seen = ahead(((item, self._look(item, scores, model, opened.tagger, pool)) for item in items), self.batch_size + 2 * readers)
            running = ((group, runner.submit(_run, group, opened.tagger)) for group in self._groups(seen, opened.tagger))
            try:
                for group, result in ahead(running, 2):  # the model runs on one while the one before is written
                    yield from self._finished(group, result, Kept(scores, model, opened.tagger), store)
            finally:
                runner.shutdown(wait=False, cancel_futures=True)
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
            todo = [item for item in batch if not known(item, scores, model)]
            pictures = [(item, prepared(item, scores, model, opened.tagger)) for item in todo]
            self._keep(pictures, lambda: scored(fresh(pictures), opened.tagger), Kept(scores, model, opened.tagger))
        return batch

    def _register(self, scores: ScoreStore, opened: Opened) -> Model:
        return scores.register(self.tagger, opened.located.identity, opened.tagger.version, opened.tagger.labels)

    def _look(self, item: Item, scores: ScoreStore, model: Model, tagger: Tagger, pool: ThreadPoolExecutor) -> Future[Any] | None:
        """Start to decode a picture that has to be; those set aside and those known pass by."""
        if not self.todo([item]) or known(item, scores, model):
            return None
        return pool.submit(prepared_aside, item, scores, model, tagger)

    def _groups(self, seen: Iterable[Waiting], tagger: Tagger) -> Iterator[list[Waiting]]:
        """Cut the stream so that each piece has one pass's worth of pictures to score, and none grows without end."""
        group: list[Waiting] = []
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

    def _finished(self, group: list[Waiting], result: Future[dict[str, np.ndarray]], kept: Kept, store: Store) -> Iterator[Item]:
        """Keep a group's scores and remember it; a picture that cannot be decoded is set aside."""
        self._keep(decoded(group), result.result, kept)
        for item, future in group:
            if future is not None:
                self.remember(item, store)
            yield item

    def _keep(self, pictures: Sequence[tuple[Item, np.ndarray | None]], result: Callable[[], dict[str, np.ndarray]], kept: Kept) -> None:
        """Keep the scores of pictures, which `result` returns; one that gets no sound ones is set aside.

        Raises UnsoundScores if the model has given none at all, to this folder's other pictures either.
        """
        try:
            kept.scores.put(kept.model, result())
        except UnsoundScores:
            unsound = without(fresh(pictures), *kept)
            if not kept.scores.any(kept.model):
                raise
            for item, _ in pictures:
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
        """Score the folder's pictures and compile their captions; `given` are settings of `prep caption`.

        A task that has a share of them scores only: captions take seconds, and what is known of all of them lies in one table.
        """
        from prep.run import run_steps

        captions = [] if self.shard else [Caption.configured(place, {**given, "tagger": self.tagger})]
        run_steps(place, [self, *captions])

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


def _run(group: Sequence[Waiting], tagger: Tagger) -> dict[str, np.ndarray]:
    """Have the model run on what of a group could be decoded."""
    return scored(fresh(decoded(group)), tagger)


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
