"""Tag: score every picture with a tagger, keep the raw scores, and compile the captions from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prep.caption import Caption
from prep.images import load
from prep.item import Item, Store
from prep.options import given_values, option, parameters
from prep.project import Place
from prep.scores import ScoreStore, picture_key
from prep.step import Step
from prep.taggers import TAGGERS, Located, Tagger, locate

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Tag(Step):
    """Score every picture with a tagger and write its tags beside it, as NAME.txt.

    Scores are kept: pictures that have them are not scored again, and `prep caption` compiles other captions from them in seconds.
    The pictures themselves are never changed, and captions written by hand stay.
    """

    tagger: str = option("pocket", help=f"Which tagger: {', '.join(TAGGERS)}, or a folder with model.onnx and selected_tags.csv.")
    device: str = option("auto", help="Where the tagger runs; cuda is an error where it cannot.", choices=("auto", "cpu", "cuda"))
    batch_size: int = option(16, "-b", help="Pictures per forward pass.", min=1, max=1024)

    @property
    def batch(self) -> int:
        """Here the size is the user's."""
        return self.batch_size

    @cached_property
    def _located(self) -> Located:
        return locate(self.tagger)

    @cached_property
    def _tagger(self) -> Tagger:
        return self._located.open(self.device, self.batch_size)

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        with ScoreStore.open(store.hidden) as scores:
            model = scores.register(self.tagger, self._located.identity, self._tagger.version, self._tagger.labels)
            prepared: dict[str, np.ndarray] = {}
            for item in batch:
                if item.stamps.get("tag") == _state(item.picture) and scores.has(picture_key(item.picture_digest, item.crop), model):
                    continue  # known without decoding
                image = load(item.picture)
                item.see(image)
                item.stamps["tag"] = _state(item.picture)
                picture = picture_key(item.picture_digest, item.crop)
                if picture not in prepared and not scores.has(picture, model):
                    prepared[picture] = self._tagger.prepare(image.crop(item.crop) if item.crop else image)
            if prepared:
                scores.put(model, dict(zip(prepared, self._tagger.score(list(prepared.values())), strict=True)))
        return batch

    def finish(self, place: Place, store: Store) -> None:
        if self._tagger.provider:
            click.echo(f"{self.tagger} ran on {self._tagger.provider.removesuffix('ExecutionProvider')}", err=True)

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


def _state(path: Path) -> str:
    """Return what changes when a file does, as far as can be told without reading it."""
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"
