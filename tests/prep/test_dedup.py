"""Dedup: copies are found however they were resized and compressed; different drawings of one character never are."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipelines.pocket import world
from prep import dedup, sights
from prep.clean import Clean
from prep.dedup import Dedup, same_picture
from prep.item import Item
from prep.project import Place
from prep.run import run_steps
from prep.sights import candidates
from prep.similar import look
from prep.store import Store

MOUTHS = ("smile", "frown", "open", "line")
EYES = ("blue", "green", "closed")
MARKS = ("none", "star", "glasses")


def draw(mouth: str = "smile", eyes: str = "blue", mark: str = "none", side: int = 320) -> Image.Image:
    """Draw one character in one pose; the variants differ in a few pixels only."""
    image = Image.new("RGB", (640, 640), (150, 190, 220))
    pen = ImageDraw.Draw(image)
    pen.ellipse((120, 80, 520, 520), fill=(90, 40, 120))
    pen.ellipse((170, 150, 470, 500), fill=(250, 220, 190), outline="black", width=6)
    pen.rectangle((200, 510, 440, 640), fill=(200, 60, 60), outline="black", width=6)
    for x in (250, 390):
        if eyes == "closed":
            pen.arc((x - 25, 270, x + 25, 310), 0, 180, fill="black", width=7)
        else:
            pen.ellipse((x - 25, 260, x + 25, 320), fill={"blue": (40, 80, 200), "green": (30, 140, 70)}[eyes], outline="black", width=5)
    arcs = {"smile": (280, 380, 360, 440, 0, 180), "frown": (280, 400, 360, 460, 180, 360)}
    if mouth in arcs:
        pen.arc(arcs[mouth][:4], *arcs[mouth][4:], fill=(120, 20, 20), width=8)
    elif mouth == "open":
        pen.ellipse((295, 390, 345, 450), fill=(120, 20, 20))
    else:
        pen.line((285, 420, 355, 420), fill=(120, 20, 20), width=8)
    if mark == "star":
        pen.regular_polygon((420, 380, 18), 4, fill=(250, 200, 0))
    if mark == "glasses":
        pen.rectangle((215, 250, 425, 330), outline="black", width=5)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def decide(folder: Path, images: dict[str, Image.Image], **options: bool) -> dict[str, str]:
    """Save pictures, run dedup on the folder, and return name -> what it is a duplicate of."""
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        image.save(folder / name)
    report = run_steps(Place(folder), [Dedup(**options)])
    assert all(reason == "duplicate" for _, reason, _ in report.aside)
    return {key: detail for key, _, detail in report.aside}


def photographs() -> list[Image.Image]:
    data = pytest.importorskip("skimage.data")
    return [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee")]


@settings(deadline=None, max_examples=15, derandomize=True)
@given(factor=st.floats(0.5, 2), quality=st.integers(40, 95), which=st.integers(0, 3))
def test_a_resized_and_recompressed_copy_is_found(factor: float, quality: int, which: int) -> None:
    original = [*photographs(), draw(side=400)][which]
    copy = jpeg(resized(original, factor), quality)
    assert same_picture(original, copy)
    assert set(candidates([look(original), look(copy)])) == {(0, 1)}


@pytest.mark.parametrize("mark", [pytest.param(mark, marks=[pytest.mark.slow] * (mark != "star")) for mark in MARKS])
def test_different_drawings_of_one_character_are_kept(tmp_path: Path, mark: str) -> None:
    variants = list(itertools.product(MOUTHS, EYES, (mark,)))
    images = {f"{'-'.join(variant)}.png": draw(*variant, side=256 + 32 * (index % 3)) for index, variant in enumerate(variants)}
    assert decide(tmp_path, images) == {}


def test_a_small_difference_shows_through_compression() -> None:
    for mouth, eyes, mark in (("line", "blue", "none"), ("smile", "green", "none"), ("smile", "blue", "star")):
        assert not same_picture(draw(), jpeg(draw(mouth, eyes, mark), 60))


def test_shifted_and_mirrored_are_other_pictures() -> None:
    image = draw("smile", "blue", "star")
    assert not same_picture(image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert not same_picture(image, Image.fromarray(np.roll(np.asarray(image), 4, axis=1)))


def test_the_largest_is_kept_then_the_least_compressed(tmp_path: Path) -> None:
    large = draw(side=400)
    images = {"small.png": resized(large, 0.6), "large.png": large, "middle.png": jpeg(resized(large, 0.8), 70), "other.png": draw("frown")}
    assert decide(tmp_path / "size", images) == {"small": "of large", "middle": "of large"}
    (tmp_path / "raw").mkdir()
    large.save(tmp_path / "raw" / "best.jpg", quality=95)
    large.save(tmp_path / "raw" / "a.jpg", quality=50)
    step = Clean(out=str(tmp_path / "out"))
    report = run_steps(Place(tmp_path / "raw"), [step, Dedup()])
    assert report.aside == [("a", "duplicate", "of best")]


def test_every_duplicate_names_the_one_that_is_kept(tmp_path: Path) -> None:
    small = resized(draw(), 0.7)
    assert decide(tmp_path, {"best.png": draw(), "b.png": small, "bb.png": small}) == {"b": "of best", "bb": "of best"}


def test_of_equal_files_the_shorter_name_is_kept(tmp_path: Path) -> None:
    assert decide(tmp_path, {"copy of mira.png": draw(), "mira.png": draw()}) == {"copy of mira": "of mira"}


def test_without_near_only_equal_pixels_count(tmp_path: Path) -> None:
    images = {"a.png": draw(), "b.bmp": draw(), "c.png": resized(draw(), 0.8)}
    assert decide(tmp_path, images, near=False) == {"a": "of b"}  # the bmp is the larger file


def test_running_again_decides_the_same_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decide(tmp_path, {"a.png": draw(), "b.png": resized(draw(), 0.7), "c.png": draw("frown")})
    assert first == {"b": "of a"}
    monkeypatch.setattr(sights, "load", lambda path: pytest.fail(f"decoded {path} again"))
    monkeypatch.setattr(dedup, "load", lambda path: pytest.fail(f"compared {path} again"))
    assert decide(tmp_path, {}) == first


def test_a_duplicate_comes_back_when_its_better_copy_goes(tmp_path: Path) -> None:
    assert decide(tmp_path, {"a.png": draw(), "b.png": resized(draw(), 0.7)}) == {"b": "of a"}
    (tmp_path / "a.png").unlink()
    assert decide(tmp_path, {}) == {}
    assert [(item.key, item.dropped) for item in Store(tmp_path).items()] == [("b", "")]


def test_broken_and_damaged_files(tmp_path: Path) -> None:
    draw().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    report = run_steps(Place(tmp_path), [Dedup()])
    assert [(key, reason) for key, reason, _ in report.aside] == [("b", "truncated")]
    (tmp_path / ".atelier" / "looks.npz").write_bytes(b"PK\3\4 damaged")
    assert run_steps(Place(tmp_path), [Dedup()]).kept == 1


def test_items_set_aside_before_pass_by(tmp_path: Path) -> None:
    draw().save(tmp_path / "a.png")
    item = Item("gone", tmp_path / "missing.png", dropped="too_small")
    assert list(Dedup()([item], Store(tmp_path))) == [item]
    assert item.dropped == "too_small"


def run(folder: Path, **options: bool) -> dict[str, Item]:
    run_steps(Place(folder), [Dedup(**options)])
    return {item.key: item for item in Store(folder).items()}


def test_mirrored_and_marked_copies_are_named_and_the_clean_one_is_kept(tmp_path: Path) -> None:
    photograph = photographs()[0]
    marked = photograph.copy()
    ImageDraw.Draw(marked).text((280, 480), "www.example-art.com", "white", ImageFont.load_default(20))
    mirrored = ImageOps.mirror(resized(photograph, 0.7))
    grey = photograph.convert("L").convert("RGB")
    images = {"plain.png": resized(photograph, 0.9), "marked.png": marked, "mirrored.png": mirrored, "grey.png": grey}
    assert decide(tmp_path, images) == {"marked": "of plain (marked)", "mirrored": "of plain (mirrored)", "grey": "of plain (grey)"}


def test_what_may_be_a_mark_or_a_drawing_is_only_proposed(tmp_path: Path) -> None:
    for name, mark in (("plain.png", "none"), ("glasses.png", "glasses")):
        draw(mark=mark).save(tmp_path / name)
    items = run(tmp_path)
    assert [(key, item.detail) for key, item in items.items() if item.proposed == "duplicate"] == [
        ("plain", "of glasses (or another drawing)")
    ]  # the larger file
    assert not any(item.dropped for item in items.values())
    assert run(tmp_path) == items
    assert not any(item.proposed or item.detail for item in run(tmp_path, near=False).values())


def test_the_tags_of_copies_are_added_once_and_can_be_taken_back(tmp_path: Path) -> None:
    image = draw()
    (tmp_path / "raw").mkdir()
    for name, copy, caption in (
        ("a", image, "1girl, long_hair"),
        ("b", resized(image, 0.8), "Long hair, smile, solo"),
        ("c", resized(image, 0.6), "smile, hat"),
        ("d", resized(image, 0.7), "a girl with long purple hair looks at the viewer and smiles"),
    ):
        copy.save(tmp_path / "raw" / f"{name}.png")
        (tmp_path / "raw" / f"{name}.txt").write_text(caption, encoding="utf-8")
    steps = [Clean(out=str(tmp_path / "out"), min_side=100)]
    for near, expected in ((True, "1girl, long_hair, smile, solo, hat"), (True, "1girl, long_hair, smile, solo, hat"), (False, "1girl, long_hair")):
        run_steps(Place(tmp_path / "raw"), [*steps, Dedup(near=near)])
        assert Store(tmp_path / "out").load()[0].imported_caption == expected


def test_a_copy_with_a_caption_gives_it_to_one_without(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    draw().save(tmp_path / "raw" / "a.png")
    resized(draw(), 0.8).save(tmp_path / "raw" / "b.png")
    (tmp_path / "raw" / "b.txt").write_text("mira, smile", encoding="utf-8")
    run_steps(Place(tmp_path / "raw"), [Clean(out=str(tmp_path / "out")), Dedup()])
    assert [item.imported_caption for item in Store(tmp_path / "out").load()] == ["mira, smile", "mira, smile"]


def test_what_was_cut_out_of_a_picture_is_no_copy_of_it(tmp_path: Path) -> None:
    draw().save(tmp_path / "a.png")
    draw().save(tmp_path / "a-head.png")
    items = [Item("a", tmp_path / "a.png"), Item("a-head", tmp_path / "a-head.png", parent="a")]
    assert [item.dropped for item in Dedup()(items, Store(tmp_path))] == ["", ""]


@pytest.mark.slow
def test_of_two_hundred_drawings_of_one_character_none_is_dropped(tmp_path: Path) -> None:
    pictures = [image for image, _ in world.demo_pictures(200, 11)]
    images = {f"p{index}.png": ImageOps.mirror(image) if index % 2 else image for index, image in enumerate(pictures)}
    assert decide(tmp_path, images) == {}


def test_a_caption_of_several_lines_gets_a_copys_tags_in_each_line_of_tags(tmp_path: Path) -> None:
    prose = "a girl with long purple hair looks at the viewer and smiles"
    (tmp_path / "raw").mkdir()
    for name, scale, caption in (
        ("a", 1.0, f"1girl, long_hair\n\n{prose}\n1girl, smile\n"),
        ("b", 0.8, f"Long hair, hat\n{prose}, too\nsmile, solo"),
        ("c", 0.6, "hat, bow"),
    ):
        resized(draw(), scale).save(tmp_path / "raw" / f"{name}.png")
        (tmp_path / "raw" / f"{name}.txt").write_text(caption, encoding="utf-8")
    expected = f"1girl, long_hair, hat, smile, solo, bow\n{prose}\n1girl, smile, Long hair, hat, solo, bow"
    for near in (True, True, False):
        run_steps(Place(tmp_path / "raw"), [Clean(out=str(tmp_path / "out"), min_side=100), Dedup(near=near)])
        merged = Store(tmp_path / "out").load()[0].imported_caption
        assert merged == (expected if near else f"1girl, long_hair\n\n{prose}\n1girl, smile")
