"""Looks at pictures: remembered by content, never for a changed file, and a broken memory is an empty one."""

import os
from pathlib import Path

import pytest
from PIL import Image

import train.looks
from prep.images import load, pixel_hash
from prep.options import UserError
from train.looks import Looks


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The pictures that were decoded."""
    seen, real = [], train.looks.decode

    def decode(path: Path, background: object) -> object:
        seen.append(path)
        return real(path, background)

    monkeypatch.setattr(train.looks, "decode", decode)
    return seen


def saved(folder: Path, picture: Path, alpha_mask: bool = True) -> Looks:
    looks = Looks.open(folder / "looks.json")
    looks.of(picture, alpha_mask)
    looks.save()
    return looks


def test_a_picture_is_decoded_once(tmp_path: Path, tiny_tree: Path, decoded: list[Path]) -> None:
    picture = tiny_tree / "img/2_tok/2.png"
    saved(tmp_path, picture)
    look = Looks.open(tmp_path / "looks.json").of(picture, True)
    assert (look.digest, look.width, look.height, look.mask) == (pixel_hash(load(picture)), 160, 80, "")
    assert decoded == [picture]


def test_a_changed_file_is_looked_at_anew_even_if_its_time_is_not(tmp_path: Path, tiny_tree: Path) -> None:
    picture = tiny_tree / "img/2_tok/0.png"
    saved(tmp_path, picture)
    times = (picture.stat().st_atime, picture.stat().st_mtime)
    Image.linear_gradient("L").resize((96, 96)).convert("RGB").save(picture)
    os.utime(picture, times)
    assert Looks.open(tmp_path / "looks.json").of(picture, True).digest == pixel_hash(load(picture))


def test_masks_are_asked_for_apart(tmp_path: Path, tiny_tree: Path, decoded: list[Path]) -> None:
    picture = tiny_tree / "img/2_tok/0.png"
    image = Image.open(picture).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(picture)
    plain, masked = (saved(tmp_path, picture, alpha_mask).of(picture, alpha_mask) for alpha_mask in (False, True))
    assert masked.mask and not plain.mask and plain.digest != masked.digest
    assert len(decoded) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"decoder": [0], "looks": {}}', '{"decoder": null}', '{"looks": 3}'])
def test_a_broken_or_foreign_memory_is_empty(tmp_path: Path, tiny_tree: Path, content: str, decoded: list[Path]) -> None:
    (tmp_path / "looks.json").write_text(content, encoding="utf-8")
    saved(tmp_path, tiny_tree / "img/2_tok/0.png")
    assert len(decoded) == 1
    saved(tmp_path, tiny_tree / "img/2_tok/0.png")
    assert len(decoded) == 1


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        Looks.open(None).of(tmp_path / "a.png", True)
