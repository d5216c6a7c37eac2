"""A small folder with scored pictures and captions, and the page's server on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from starlette.testclient import TestClient

from prep.cli import main
from prep.images import load, pixel_hash
from prep.item import Item
from prep.project import Place
from prep.review.desk import Desk
from prep.review.journal import Journal
from prep.review.routes import app
from prep.scores import Labels, ScoreStore
from prep.store import Store

LABELS = Labels(("safe", "1girl", "red_eyes", "hat", "long_hair"), ("rating", *["general"] * 4))
SCORES = {"a": [1, 0.99, 0.6, 0.4, 0.2], "b": [1, 0.98, 0.7, 0.1, 0.9], "c": [1, 0.97, 0.02, 0.01, 0.45]}
PORT = 8124


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of 24 x 16 with captions that `prep caption` has compiled; c has none of those two tags."""
    store = Store(tmp_path)
    with ScoreStore.open(store.hidden) as scores:
        model = scores.register("planted", "w", 1, LABELS)
        for number, (key, values) in enumerate(SCORES.items()):
            path = tmp_path / f"{key}.png"
            pixels = np.random.default_rng(number).integers(0, 255, (16, 24, 3), np.uint8)  # no two are alike
            Image.fromarray(pixels).save(path)
            item = Item(key, path, digest=pixel_hash(load(path)), width=24, height=16)
            scores.put(model, {item.digest: np.array(values, np.float32)})
            store.save(item)
    assert CliRunner().invoke(main, ["caption", str(tmp_path)]).exit_code == 0
    return tmp_path


class Page:
    """What the page's scripts do, as requests."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.store = folder, Store(folder)
        self.desk = Desk(Place.open(folder), Journal(self.store.hidden, stack))
        self.desk.load()
        base = f"http://127.0.0.1:{PORT}"
        self.client = TestClient(app(self.desk, "t", PORT), base_url=f"{base}/t", headers={"origin": base})

    def get(self, path: str, **params: Any) -> Any:
        return self.client.get(path, params=params).json()

    def rows(self, text: str = "", sort: str = "name") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("api/list", filter=text, sort=sort)["rows"]
        return found

    def shown(self, text: str, sort: str = "name") -> str:
        """Return the keys that a filter shows, in a string."""
        return "".join(row["key"] for row in self.rows(text, sort))

    def versions(self, keys: str) -> dict[str, str]:
        """Look at pictures, of one letter each or one of a longer name, as they are now."""
        names = [keys] if keys in self.desk.library.rows else list(keys)
        return {key: self.get("api/item", key=key)["version"] for key in names}

    def edit(self, keys: str, kind: str, **given: Any) -> Any:
        return self.post("api/edit", title=kind, versions=self.versions(keys), edit={"kind": kind, **given})

    def post(self, path: str, **sent: Any) -> Any:
        return self.client.post(path, json=sent)

    def text(self, key: str) -> str | None:
        path = self.folder / f"{key}.txt"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def item(self, key: str) -> Item:
        item = self.store.get(key)
        assert item
        return item


@pytest.fixture
def page(folder: Path) -> Iterator[Page]:
    with ExitStack() as stack:
        yield Page(folder, stack)
