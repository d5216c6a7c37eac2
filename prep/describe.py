"""Describe: have a model say in a sentence what each picture shows, for captions of bases that were trained on sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prep.captioners import CAPTIONERS, Captioner, captioner
from prep.item import Item
from prep.options import option
from prep.step import Step
from prep.store import Store


@dataclass(frozen=True)
class Describe(Step):
    """Have a model describe every picture in a sentence, which `prep caption --template` puts into the captions.

    The sentences are kept: `prep caption` compiles other captions from them without the model.
    """

    captioner: str = option("blip", help=f"Which model: {', '.join(CAPTIONERS)}, or a model's folder.")
    prompt: str = option("", help="What the model is asked (default: the captioner's own).")
    max_new_tokens: int = option(0, help="Tokens of an answer at most; 0 = the captioner's own.", min=0, max=1024)
    count: int = option(1, "-n", help="Sentences a picture; the first is the likeliest, the others vary.", min=1, max=20)
    seed: int = option(0, help="What the varied sentences are drawn from.", min=0)
    device: str = option("auto", help="Where the model runs; cuda is an error where it cannot.", choices=("auto", "cpu", "cuda"), matters=False)
    batch_size: int = option(8, "-b", help="Pictures described at once.", min=1, max=256, matters=False)

    @property
    def batch(self) -> int:
        """Here the size is the user's."""
        return self.batch_size

    @cached_property
    def _captioner(self) -> Captioner:
        return captioner(self.captioner, self.device, self.prompt, self.max_new_tokens)

    def inputs(self, item: Item) -> Any:
        stat = item.picture.stat()
        return [stat.st_size, stat.st_mtime_ns, item.crop]

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        described = self._captioner.describe([item.image() for item in batch], self.count, self.seed)
        for item, sentences in zip(batch, described, strict=True):
            item.sentences = list(dict.fromkeys(filter(None, sentences)))
        return batch
