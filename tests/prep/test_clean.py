"""Clean: what comes out of a raw folder, what is set aside, and that the raw folder stays as it was."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFilter

from prep import clean
from prep.clean import Clean
from prep.cli import main
from prep.crop import Crop
from prep.dedup import Dedup
from prep.images import load, pixel_hash
from prep.item import Item
from prep.options import UserError
from prep.project import Place
from prep.run import run_steps
from prep.store import Store

PLAIN = {"check": False, "trim_borders": False, "report": False}  # the pictures here are blurred, flat and have no subject
FLAGS = ("--no-check", "--no-trim-borders", "--no-report")


def noise(seed: int, width: int = 240, height: int = 220) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def project(tmp_path: Path) -> Place:
    (tmp_path / "dataset.toml").write_text("", encoding="utf-8")
    (tmp_path / "raw").mkdir()
    return Place.open(tmp_path)


def run(place: Place, **options: object) -> dict[str, Item]:
    """Run clean and return the items that the sidecars hold, by key."""
    step = Clean(**{**PLAIN, **options})  # type: ignore[arg-type]
    step.main(place)
    return {item.key: item for item in step.store(place).load()}


def fingerprints(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def dirty(raw: Path) -> None:
    """Fill a raw folder with one of each fault."""
    noise(0).save(raw / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(1).save(raw / "turned.jpg", exif=exif)
    noise(2).convert("CMYK").save(raw / "print.JPEG")
    Image.fromarray(np.arange(240 * 220, dtype=np.uint16).reshape(220, 240)).save(raw / "deep.png")
    cut_out = noise(3).convert("RGBA")
    cut_out.putalpha(Image.linear_gradient("L").resize(cut_out.size))
    cut_out.save(raw / "cut out ü 漢字.png")
    noise(4).save(raw / "wrong.png", format="JPEG")
    noise(5, 199, 400).save(raw / "small.png")
    (raw / "broken.jpg").write_bytes((raw / "turned.jpg").read_bytes()[:900])
    (raw / "empty.png").touch()
    (raw / "page.jpg").write_text("<html>not found</html>", encoding="utf-8")


def test_every_fault_has_its_outcome_and_raw_is_untouched(project: Place) -> None:
    dirty(project.raw)
    before = fingerprints(project.raw)
    items = run(project)
    assert fingerprints(project.raw) == before
    assert {key: item.dropped for key, item in items.items() if item.dropped} == {
        "small": "too_small",
        "broken": "truncated",
        "empty": "empty_file",
        "page": "unreadable",
    }
    assert items["small"].detail == "the shorter side has 199 pixels, it should have 200"
    assert {key: item.notes for key, item in items.items() if not item.dropped} == {
        "plain": [],
        "turned": ["exif_rotated"],
        "print": ["cmyk_converted", "renamed_suffix"],
        "deep": ["16bit_scaled"],
        "cut out ü 漢字": ["alpha_composited"],
        "wrong": ["renamed_suffix"],
    }
    for item in items.values():
        if not item.dropped:
            assert item.path == project.work / f"{item.key}.png"
            image = load(item.path)
            assert (item.digest, item.width, item.height) == (pixel_hash(image), *image.size)
    assert load(items["turned"].path).size == (220, 240)


def test_again_changes_nothing_and_decodes_nothing(project: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    dirty(project.raw)
    run(project)
    before = fingerprints(project.work / ".atelier" / "items")
    monkeypatch.setattr(clean, "decode", lambda *_: pytest.fail("decoded again"))
    run(project, workers=1)
    assert fingerprints(project.work / ".atelier" / "items") == before


def test_a_killed_run_goes_on(project: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    dirty(project.raw)
    whole = {key: (item.digest, item.dropped) for key, item in run(project, workers=1).items()}
    shutil.rmtree(project.work)
    real, calls = clean.decode, iter(range(5))

    def dies(*args: object) -> object:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(clean, "decode", dies)
    with pytest.raises(KeyboardInterrupt):
        run(project, workers=1)
    monkeypatch.setattr(clean, "decode", real)
    next(path for path in (project.work / ".atelier" / "items").iterdir()).unlink()  # as if killed before the sidecar
    assert {key: (item.digest, item.dropped) for key, item in run(project).items()} == whole


def test_colliding_stems_get_names_of_their_own(project: Place) -> None:
    for seed, name in enumerate(("A.png", "a.jpg", "a.png", "b.png")):
        noise(seed).save(project.raw / name)
    if len(list(project.raw.iterdir())) < 4:
        pytest.skip("this file system does not tell A.png from a.png")
    items = run(project)
    assert sorted(items) == ["A", "a-2", "a-3", "b"]
    assert {item.source.name: key for key, item in items.items() if item.source} == {"A.png": "A", "a.jpg": "a-2", "a.png": "a-3", "b.png": "b"}
    noise(9).save(project.raw / "A.webp")
    assert set(run(project)) == {"A", "a-2", "a-3", "b", "A-4"}


def test_captions_beside_raw_pictures_are_taken_along(project: Place) -> None:
    noise(0).save(project.raw / "a.png")
    noise(1).save(project.raw / "b.png")
    (project.raw / "a.txt").write_bytes(b"\xef\xbb\xbf1girl, smile\r\n")
    assert {key: item.imported_caption for key, item in run(project).items()} == {"a": "1girl, smile", "b": None}
    (project.raw / "b.caption").write_text("1boy", encoding="utf-8")
    assert run(project)["b"].imported_caption == "1boy"


def test_a_changed_raw_picture_is_done_again(project: Place) -> None:
    noise(0).save(project.raw / "a.png")
    old = run(project)["a"].digest
    noise(1).save(project.raw / "a.png")
    assert run(project)["a"].digest == pixel_hash(noise(1)) != old


def test_what_was_set_aside_comes_back_when_it_may(project: Place) -> None:
    noise(0, 150, 150).save(project.raw / "a.png")
    noise(1).save(project.raw / "b.png")
    assert run(project)["a"].dropped == "too_small"
    assert run(project, min_side=100)["a"].dropped == ""
    assert run(project)["a"].dropped == "too_small"
    assert [item.key for item in Store(project.work).items() if not item.dropped] == ["b"]


def test_a_picture_taken_out_of_raw_is_set_aside_and_comes_back(project: Place) -> None:
    noise(0).save(project.raw / "a.png")
    noise(1).save(project.raw / "b.png")
    run(project)
    (project.raw / "a.png").rename(project.root / "a.png")
    assert run(project)["a"].dropped == "source_gone"
    (project.root / "a.png").rename(project.raw / "a.png")
    assert run(project)["a"].dropped == ""


def test_another_format_replaces_the_former_files(project: Place) -> None:
    noise(0).save(project.raw / "a.png")
    run(project)
    item = run(project, format="jpg", quality=80)["a"]
    assert [path.name for path in project.work.iterdir() if path.is_file()] == ["a.jpg"]
    assert item.digest == pixel_hash(load(project.work / "a.jpg"))


def test_a_stranger_in_work_is_not_overwritten(project: Place) -> None:
    noise(0).save(project.raw / "a.png")
    project.work.mkdir()
    noise(1).save(project.work / "a.png")
    with pytest.raises(UserError, match=r"a\.png was not made from"):
        run(project)
    assert pixel_hash(load(project.work / "a.png")) == pixel_hash(noise(1))


def test_a_bare_folder_goes_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pics").mkdir()
    noise(0).save(tmp_path / "pics" / "a.jpeg")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = CliRunner().invoke(main, ["clean", *FLAGS, "pics"])
        assert result.exit_code == 0, result.output
        assert [path.name for path in (tmp_path / "pics-clean").glob("[!.]*")] == ["a.png"]
    assert os.listdir(tmp_path / "pics") == ["a.jpeg"]
    assert CliRunner().invoke(main, ["clean", *FLAGS, "pics", "--out", "other"]).exit_code == 0
    assert (tmp_path / "other" / "a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pics", "--out", "pics"], "cannot go to"),
        (["pics", "--background", "nocolour"], "'nocolour' is no colour"),
        (["empty"], "there are no pictures in"),
        (["missing"], "there is no folder missing"),
    ],
)
def test_mistakes_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pics").mkdir()
    noise(0).save(tmp_path / "pics" / "a.png")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["clean", *FLAGS, *arguments])
    assert result.exit_code == 1
    assert message in result.output.replace("\n", " ")


def test_clean_dedup_crop_in_one_stream_and_again(project: Place) -> None:
    dirty(project.raw)
    noise(0).save(project.raw / "plain copy.png")
    noise(6, 480, 440).resize((360, 330)).save(project.raw / "smaller.jpg", quality=80)
    noise(6, 480, 440).save(project.raw / "larger.webp", lossless=True)
    steps = [Clean(**PLAIN), Dedup(), Crop(mode="square")]
    report = run_steps(project, steps)
    duplicates = [(key, detail) for key, reason, detail in report.aside if reason == "duplicate"]
    assert duplicates == [("plain copy", "of plain"), ("smaller", "of larger")]
    items = {item.key: item for item in Store(project.work).items()}
    assert report.kept == 7
    assert all(item.image().size[0] == item.image().size[1] for item in items.values() if not item.dropped)
    before = fingerprints(project.work / ".atelier" / "items")
    assert sorted(run_steps(project, steps).aside) == sorted(report.aside)
    assert fingerprints(project.work / ".atelier" / "items") == before


def test_out_in_a_project_is_refused(project: Place) -> None:
    with pytest.raises(UserError, match="leave --out away"):
        run(project, out="elsewhere")


def test_captions_that_tag_wrote_beside_raw_pictures_are_not_taken_for_hand_work(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("ours", "theirs"):
        Image.new("RGB", (256, 256), "red").save(raw / f"{name}.png")
        (raw / f"{name}.txt").write_text("1girl, solo\n", encoding="utf-8")
    Store(raw).save(Item("ours", raw / "ours.png", written="1girl, solo"))
    Clean(**PLAIN, out=str(tmp_path / "out")).main(Place.open(raw))
    imported = {item.key: item.imported_caption for item in Store(tmp_path / "out").load()}
    assert imported == {"ours": None, "theirs": "1girl, solo"}


def animated(path: Path, seeds: list[int]) -> None:
    pictures = [noise(seed) for seed in seeds]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], lossless=True)


def test_frames_of_an_animation_become_pictures(project: Place) -> None:
    animated(project.raw / "a.webp", [0, 1, 2, 3])
    noise(7).save(project.raw / "a-f3.png")
    noise(8).save(project.raw / "b.jpg")
    (project.raw / "a.txt").write_text("1girl", encoding="utf-8")
    assert set(run(project)) == {"a", "a-f3", "b"}
    items = run(project, frames=2)
    assert {key: item.frame for key, item in items.items()} == {"a": 1, "a-f3": 1, "a-f3-2": 3, "b": 1}
    assert items["a-f3-2"].digest == pixel_hash(noise(2)) and items["a-f3-2"].source == project.raw / "a.webp"
    assert items["a-f3-2"].imported_caption == "1girl"
    items = run(project, frames=4)
    assert {key: item.digest for key, item in items.items() if key in ("a", "a-f2", "a-f3-2", "a-f4")} == {
        "a": pixel_hash(noise(0)),
        "a-f2": pixel_hash(noise(1)),
        "a-f3-2": pixel_hash(noise(2)),
        "a-f4": pixel_hash(noise(3)),
    }


def test_frames_no_longer_asked_for_are_set_aside_and_come_back(project: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    animated(project.raw / "a.webp", [0, 1, 2, 3])
    before = {key: item.digest for key, item in run(project, frames=4).items()}
    dropped = {key: item.dropped for key, item in run(project, frames=2, workers=1).items()}
    assert dropped == {"a": "", "a-f2": "frame_left_out", "a-f3": "", "a-f4": "frame_left_out"}
    assert {item.key for item in Store(project.work).items() if not item.dropped} == {"a", "a-f3"}
    again = run(project, frames=4)
    assert {key: (item.dropped, item.digest) for key, item in again.items()} == {key: ("", digest) for key, digest in before.items()}
    monkeypatch.setattr(clean, "decode", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(clean, "frames", lambda *_: pytest.fail("decoded again"))
    assert run(project, frames=4, workers=1) == again


def test_a_frame_that_shows_nothing_new_is_set_aside(project: Place) -> None:
    still = [noise(0), Image.fromarray(np.asarray(noise(0)) ^ 1), noise(1)]
    still[0].save(project.raw / "a.webp", save_all=True, append_images=still[1:], lossless=True)
    items = run(project, frames=3)
    assert {key: item.dropped for key, item in items.items()} == {"a": "", "a-f2": "frame_repeated", "a-f3": ""}
    assert items["a-f2"].detail == "frame 2 of a.webp looks like the one before"
    assert run(project, frames=3) == items
    assert run(project)["a-f2"].dropped == "frame_left_out"
    assert run(project, frames=3) == items


def test_a_changed_animation_is_done_again(project: Place) -> None:
    animated(project.raw / "a.webp", [0, 1, 2])
    run(project, frames=3)
    animated(project.raw / "a.webp", [3, 4])
    items = run(project, frames=3)
    assert {key: item.dropped for key, item in items.items()} == {"a": "", "a-f2": "", "a-f3": "frame_left_out"}
    assert items["a-f2"].digest == pixel_hash(noise(4))


def test_pictures_with_odd_names_are_taken(project: Place) -> None:
    noise(0).save(project.raw / "a.jpg_large", format="JPEG")
    noise(1).save(project.raw / "b", format="PNG")
    (project.raw / "notes.txt").write_text("hello", encoding="utf-8")
    items = run(project)
    assert {key: item.notes for key, item in items.items()} == {"a": ["renamed_suffix"], "b": ["renamed_suffix"]}
    assert sorted(path.name for path in project.work.iterdir() if path.is_file()) == ["a.png", "b.png"]


def test_names_that_differ_only_in_how_accents_are_spelled_have_keys_of_their_own(project: Place) -> None:
    for seed, form in enumerate(("NFC", "NFD")):
        noise(seed).save(project.raw / unicodedata.normalize(form, "café.png"))
    if len(list(project.raw.iterdir())) < 2:
        pytest.skip("this file system does not tell the two spellings apart")
    items = run(project)
    assert len({unicodedata.normalize("NFC", key) for key in items}) == 2
    assert run(project) == items


def test_a_picture_that_its_format_cannot_hold_is_set_aside(project: Place) -> None:
    Image.new("RGB", (17_000, 200)).save(project.raw / "strip.png")
    noise(0).save(project.raw / "a.png")
    items = run(project, format="webp")
    assert {key: item.dropped for key, item in items.items()} == {"a": "", "strip": "too_large"}
    assert "choose png" in items["strip"].detail
    assert run(project)["strip"].dropped == ""


def photograph(name: str = "chelsea") -> Image.Image:
    import skimage.data

    return Image.fromarray(getattr(skimage.data, name)())


def test_quality_is_measured_kept_and_judged(project: Place) -> None:
    photograph().save(project.raw / "sharp.png")
    photograph().filter(ImageFilter.GaussianBlur(4)).save(project.raw / "soft.png")
    photograph("coffee").point(lambda level: level // 8).save(project.raw / "dark.png")
    Image.new("RGB", (300, 300), "tan").save(project.raw / "empty.png")
    items = run(project, check=True)
    assert {key: item.dropped for key, item in items.items()} == {"sharp": "", "soft": "blurred", "dark": "underexposed", "empty": "empty"}
    assert items["sharp"].measures["blur"] < 0.7 < items["soft"].measures["blur"] and "the limit is 0.7 %" in items["soft"].detail
    assert not run(project, check=True, max_blur=0.0)["soft"].dropped, "each limit can be switched off, and what it set aside comes back"
    assert [item.measures for item in run(project).values()] == [{"side": float(min(item.width, item.height))} for item in items.values()]


def test_borders_go_with_their_transparency(project: Place) -> None:
    picture = photograph()
    framed = Image.new("RGBA", (picture.width + 60, picture.height + 80), (0, 0, 0, 255))
    framed.paste(picture.convert("RGBA"), (30, 40))
    framed.putpixel((35, 45), (9, 9, 9, 0))
    framed.save(project.raw / "framed.png")
    item = run(project, trim_borders=True)["framed"]
    assert (item.width, item.height) == picture.size and "border_trimmed" in item.notes
    alpha = np.asarray(Image.open(project.work / "framed.mask.png"))
    assert alpha.shape == picture.size[::-1] and alpha[5, 5] == 0 and (alpha == 0).sum() == 1
    shown, wanted = np.asarray(item.image()).copy(), np.asarray(picture).copy()
    shown[5, 5] = wanted[5, 5] = 0
    assert (shown == wanted).all()


def test_a_page_shows_what_became_of_the_pictures(project: Place, capsys: pytest.CaptureFixture[str]) -> None:
    photograph().save(project.raw / "good <one>.png")
    (project.raw / "cut.png").write_bytes((project.raw / "good <one>.png").read_bytes()[:3000])
    run(project, report=True)
    page = (project.work / "report.html").read_text(encoding="utf-8")
    assert "good &lt;one&gt;" in page and "cut.png" in page and "truncated" in page and "<script" not in page and "http" not in page
    assert "report.html" in capsys.readouterr().err
