"""Stock: recipes lead to their pictures, what is damaged is never served, and the command lists and removes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from prep.project import Place
from prep.stock import Shelf, Stock, base_identity, cache_folder


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("LORA_ATELIER_CACHE", str(tmp_path / "cache"))
    return Shelf.open()


def picture(path: Path, colour: str = "red") -> Path:
    Image.new("RGB", (8, 8), colour).save(path)
    return path


def recipe(prompt: str = "a man", **more: object) -> dict[str, object]:
    return {"base": "pocket@12", "prompt": prompt, "seed": 1, "size": None, **more}


def test_a_recipe_gives_its_picture_and_no_other(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(recipe(), picture(tmp_path / "a.png"))
    assert shelf.has(recipe()) and shelf.take(dict(reversed(recipe().items())), tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    for other in (recipe("a woman"), recipe(seed=2), recipe(size=64), recipe(steps=3)):
        assert not shelf.has(other) and not shelf.take(other, tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_a_picture_put_again_takes_the_place_of_the_first(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(recipe(), picture(tmp_path / "a.png"))
    shelf.put(recipe(), picture(tmp_path / "b.png", "blue"))
    assert shelf.take(recipe(), tmp_path / "c.png") and (tmp_path / "c.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not list(shelf.folder.rglob(".tmp*"))


@pytest.mark.parametrize("damage", ["recipe", "picture", "no recipe", "no picture"])
def test_what_is_damaged_is_not_served_and_goes(shelf: Shelf, tmp_path: Path, damage: str) -> None:
    shelf.put(recipe(), picture(tmp_path / "a.png"))
    (kept,) = shelf.folder.rglob("*.png")
    path = kept if "picture" in damage else kept.with_suffix(".json")
    if damage.startswith("no"):
        path.unlink()
    else:
        path.write_bytes(b"{}")
    assert not shelf.take(recipe(), tmp_path / "b.png") and not list(shelf.folder.rglob("*.*"))
    assert damage == "picture" or (tmp_path / "a.png").exists()


def test_the_command_lists_and_removes(shelf: Shelf, tmp_path: Path) -> None:
    for seed in range(3):
        shelf.put(recipe(seed=seed), picture(tmp_path / "a.png"))
    shelf.put(recipe("[odd] woman"), picture(tmp_path / "a.png"))
    run = CliRunner()
    listed = run.invoke(Stock.command("stock"), [])
    assert listed.exit_code == 0 and "     3  pocket  a man" in listed.output and "4 pictures" in listed.output
    assert "1 pictures removed" in run.invoke(Stock.command("stock"), ["--remove", "[odd]*"]).output
    assert run.invoke(Stock.command("stock"), ["--remove", "nobody"]).exit_code == 1
    Stock(remove="*").main(Place(tmp_path))
    assert list(shelf.recipes()) == [] and (tmp_path / "a.png").exists()


def test_a_base_is_known_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "unet.safetensors").write_bytes(b"one")
    first = base_identity(str(folder))
    assert first == base_identity(str(folder)) and first.startswith(str(folder))
    (folder / "unet.safetensors").write_bytes(b"other")
    assert base_identity(str(folder)) != first
    assert base_identity("owner/name") == "owner/name" and base_identity("pocket").startswith("pocket@")


def test_the_cache_is_where_the_system_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LORA_ATELIER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lora-atelier"
