"""Describe: sentences are kept with the picture and made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from prep import describe as module
from prep.cli import main
from prep.describe import Describe
from prep.item import Item
from prep.store import Store


@dataclass
class Sizes:
    """Says how large each picture is."""

    seen: list[int] = field(default_factory=list)

    def describe(self, images: Sequence[Image.Image], count: int, seed: int) -> list[list[str]]:
        self.seen.append(len(images))
        return [[f"a picture of {image.width} by {image.height}", "", *["another"] * (count - 1)] for image in images]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    made = Sizes()
    monkeypatch.setattr(module, "captioner", lambda *_: made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for width in (8, 9, 10):
        Image.new("RGB", (width, 6)).save(tmp_path / f"{width}.png")
    return Store(tmp_path)


def describe(store: Store, **options: Any) -> dict[str, list[str]]:
    return {item.key: item.sentences for item in Describe(**options)(store.items(), store)}


def test_sentences_are_kept_and_made_once(sizes: Sizes, store: Store) -> None:
    wanted = {f"{width}": [f"a picture of {width} by 6"] for width in (8, 9, 10)}
    assert describe(store, batch_size=2) == wanted and sizes.seen == [2, 1]
    assert {item.key: item.sentences for item in store.load()} == wanted
    assert describe(store, batch_size=3) == wanted and sizes.seen == [2, 1], "the batch size does not change what is said"
    assert describe(store, count=3)["8"] == ["a picture of 8 by 6", "another"], "neither empty nor twice"


def test_what_is_described_is_the_cropped_picture(sizes: Sizes, store: Store) -> None:
    describe(store)
    item = next(item for item in store.load() if item.key == "10")
    item.crop = (0, 0, 4, 4)
    store.save(item)
    assert describe(store)["10"] == ["a picture of 4 by 4"] and sizes.seen == [3, 1]


def test_the_command_works_on_a_folder_and_an_unknown_captioner_is_a_sentence(store: Store) -> None:
    result = CliRunner().invoke(main, ["describe", str(store.folder), "--captioner", "blop"])
    assert result.exit_code == 1 and "neither a captioner nor a model's folder" in result.output
    assert not any(isinstance(item, Item) and item.sentences for item in store.load())
