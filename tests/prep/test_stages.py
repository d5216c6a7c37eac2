"""Stages: half body and head are pictures of their own that come, stay and go with the picture they are cut out of."""

from __future__ import annotations

from pathlib import Path

import pytest

from prep.caption import Caption
from prep.crop import Crop
from prep.images import load
from prep.item import Box
from prep.masks import loss_mask, update_mask
from prep.options import UserError
from prep.project import Place
from prep.run import run_steps
from prep.stages import parse
from prep.step import Step
from prep.store import Store
from prep.tag import Tag
from tests.prep.test_crop import run, sidecar, speckled


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    """Make a folder with one tall picture whose face is marked by hand."""
    image = speckled(400, 900, (150, 60, 250, 180))
    image.save(tmp_path / "a.png")
    run(tmp_path, mode="square", detector="none")
    sidecar(tmp_path, boxes=[{"label": "face", "score": 0.9, "x0": 160, "y0": 80, "x1": 240, "y1": 170}])
    return tmp_path


STAGES = {"mode": "stages", "detector": "none", "resolution": 256}


def stages(folder: Path, steps: tuple[Step, ...] = (), **options: object) -> list[str]:
    run_steps(Place(folder), [Crop(**(STAGES | options)), *steps])  # type: ignore[arg-type]
    return [item.key for item in Store(folder).items()]


def test_stages_are_pictures_of_their_own(portrait: Path) -> None:
    before = (portrait / "a.png").read_bytes()
    assert stages(portrait) == ["a-half", "a-head", "a"]
    half, head, whole = Store(portrait).items()
    assert (half.parent, half.stage, half.emphasis, half.source) == ("a", "half", 0.5, None)
    assert (whole.stage, whole.emphasis, whole.crop) == ("whole", 1.0, None)
    assert load(half.path).size == (half.width, half.height) and load(head.path).size == (198, 198)
    assert [(box.label, box.x1 - box.x0) for box in head.boxes] == [("face", 80)]
    assert load(head.path).crop((head.boxes[0].x0, head.boxes[0].y0, head.boxes[0].x1, head.boxes[0].y1)).tobytes() == (
        load(portrait / "a.png").crop((160, 80, 240, 170)).tobytes()
    )
    assert (portrait / "a.png").read_bytes() == before


def test_a_second_run_changes_nothing_and_later_steps_still_see_the_stages(portrait: Path) -> None:
    stages(portrait)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in portrait.rglob("*") if path.is_file() and path.name != "report.json"}
    seen = [item.key for item in Crop(**STAGES)(Store(portrait).items(), Store(portrait))]  # type: ignore[arg-type]
    assert seen == ["a", "a-half", "a-head"]
    raw_only = [item for item in Store(portrait).items() if not item.parent]  # as in `prep run`, where the stages are not among the raw pictures
    assert [item.key for item in Crop(**STAGES)(raw_only, Store(portrait))] == seen  # type: ignore[arg-type]
    assert files == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_stages_that_are_no_longer_wanted_go(portrait: Path) -> None:
    stages(portrait)
    assert stages(portrait, stages="whole:1,head:2") == ["a-head", "a"]
    assert sidecar(portrait, "a-head")["emphasis"] == 2
    assert stages(portrait, mode="square") == ["a"]
    assert sidecar(portrait)["stage"] == "" and sidecar(portrait)["emphasis"] == 1
    stages(portrait)
    sidecar(portrait, dropped="by_hand")
    assert stages(portrait) == ["a"]
    assert not list(portrait.glob("a-*"))
    assert len(list((portrait / ".atelier" / "items").glob("*.json"))) == 1


def test_stages_of_a_picture_that_is_gone_go_too(portrait: Path) -> None:
    speckled(300, 200, (0, 0, 90, 90)).save(portrait / "b.png")
    stages(portrait)
    (portrait / "a.png").unlink()
    assert stages(portrait) == ["b"]


def test_stages_are_tagged_anew_and_captions_by_hand_stay(portrait: Path) -> None:
    steps = (Tag(device="cpu"), Caption(tagger="pocket"))
    stages(portrait, steps)
    assert all((portrait / f"{key}.txt").exists() for key in ("a", "a-half", "a-head"))
    (portrait / "a-head.txt").write_text("her face\n")
    stages(portrait, steps, max_upscale=1.0)
    assert (portrait / "a-head.txt").read_text() == "her face\n"
    stages(portrait, steps, stages="whole")
    assert (portrait / "a-head.txt").exists() and not (portrait / "a-half.txt").exists()


def test_the_loss_mask_is_cut_along(portrait: Path) -> None:
    store = Store(portrait)
    (item,) = store.items()
    item.masked = [Box("mark", 1, 100, 0, 180, 900)]
    update_mask(item, store)
    store.save(item)
    stages(portrait)
    head = next(item for item in store.items() if item.key == "a-head")
    mask = loss_mask(head)
    assert mask is not None and mask.size == (head.width, head.height)
    black = 180 - (160 - head.boxes[0].x0)  # the mark's right edge, seen from the head's left one
    assert mask.crop((0, 0, black, head.height)).getextrema() == (0, 0)
    assert mask.crop((black, 0, head.width, head.height)).getextrema() == (255, 255)


def test_a_users_own_picture_keeps_its_name(portrait: Path) -> None:
    speckled(50, 50, (0, 0, 9, 9)).save(portrait / "a-half.png")
    before = (portrait / "a-half.png").read_bytes()
    assert stages(portrait) == ["a-half-2", "a-half", "a-head", "a"]
    assert stages(portrait) == ["a-half-2", "a-half", "a-head", "a"]
    assert (portrait / "a-half.png").read_bytes() == before


def test_a_stage_is_widened_rather_than_enlarged(portrait: Path) -> None:
    stages(portrait, resolution=512)
    head = next(item for item in Store(portrait).items() if item.stage == "head")
    assert head.width * head.height >= 256**2 and not head.proposed
    stages(portrait, resolution=2048)
    assert [item.key for item in Store(portrait).items()] == ["a"]  # no more of the picture is left than is in all of it


def test_a_stage_as_large_as_the_picture_is_not_made(tmp_path: Path) -> None:
    speckled(200, 200, (0, 0, 200, 200)).save(tmp_path / "a.png")
    run(tmp_path, mode="square", detector="none")
    sidecar(tmp_path, boxes=[{"label": "face", "score": 0.9, "x0": 40, "y0": 40, "x1": 160, "y1": 160}])
    assert stages(tmp_path) == ["a"]


@pytest.mark.parametrize("text", ["half:1", "whole:0", "whole,arm:1", "whole:x", "whole:-1", "whole:nan", ""])
def test_stages_that_make_no_sense_are_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"whole:1,half:0\.5"):
        parse(text)


def test_stages_are_read() -> None:
    assert parse("whole, half:0.5,") == {"whole": 1.0, "half": 0.5}
