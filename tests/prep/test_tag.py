import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from prep.cli import main
from prep.item import Store
from prep.options import UserError
from prep.tag import Tag
from prep.taggers.wd import WDTagger
from tests.prep.taggers.models import make_tagger


def prep(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tagger(tmp_path / "tagger")
    (tmp_path / "raw").mkdir()
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "raw/red.png")
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "raw/blue.png")
    Image.new("RGB", (32, 32), (0, 160, 0)).save(tmp_path / "raw/green.webp", lossless=True)
    return tmp_path


def tag(folder: Path, *arguments: object) -> Result:
    return prep("tag", folder / "raw", "--tagger", folder / "tagger", *arguments)


def captions(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8").strip() for path in (folder / "raw").glob("*.txt")}


def test_every_picture_gets_its_tags_beside_it_and_stays_as_it_is(folder: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "raw").iterdir()}
    result = tag(folder)
    assert result.exit_code == 0, result.output
    assert captions(folder) == {"red": "red rose", "blue": "blue sky, ^_^", "green": "green grass"}
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == was for path, was in before.items())


def test_the_options_of_caption_work_here_too(folder: Path) -> None:
    assert tag(folder, "--threshold", 0.3, "--character-threshold", 0.5, "--rating", "last", "--blacklist", "red_*").exit_code == 0
    assert captions(folder)["red"] == "1girl, hatsune miku, sensitive"
    names = "".join(prep("tag", "--help").output.split())  # Click breaks long lines anywhere
    assert "--diff" not in names and "wd-eva02-large-v3" in names


def test_what_has_scores_is_not_scored_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tag(folder).exit_code == 0
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("raw/*.txt")}
    seen: list[int] = []
    monkeypatch.setattr(WDTagger, "prepare", lambda self, image: seen.append(1))
    assert tag(folder).exit_code == 0
    shutil.copy2(folder / "raw/red.png", folder / "raw/same.png")
    shutil.rmtree(folder / "raw/.atelier/items")
    assert tag(folder).exit_code == 0
    assert not seen
    assert all(path.stat().st_mtime_ns == was for path, was in written.items())
    assert captions(folder)["same"] == captions(folder)["red"]


def test_a_picture_that_was_edited_and_a_new_tagger_are_scored_anew(folder: Path) -> None:
    assert tag(folder).exit_code == 0
    Image.new("RGB", (32, 32), (0, 0, 255)).save(folder / "raw/red.png")
    assert tag(folder).exit_code == 0
    assert captions(folder)["red"] == captions(folder)["blue"]
    make_tagger(folder / "tagger", scale=0.4 / 255)
    assert tag(folder).exit_code == 0
    assert captions(folder)["blue"] == "blue sky"


def test_a_broken_picture_is_set_aside_and_the_others_go_on(folder: Path) -> None:
    (folder / "raw/broken.png").write_bytes((folder / "raw/red.png").read_bytes()[:40])
    result = tag(folder)
    assert result.exit_code == 0 and "1 set aside" in result.output
    assert set(captions(folder)) == {"red", "blue", "green"}


def test_the_crop_is_what_the_tagger_sees(folder: Path) -> None:
    image = Image.new("RGB", (64, 32), (255, 0, 0))
    image.paste((0, 0, 255), (32, 0, 64, 32))
    image.save(folder / "raw/two.png")
    assert tag(folder).exit_code == 0
    store = Store(folder / "raw")
    item = next(item for item in store.load() if item.key == "two")
    item.crop = (32, 0, 64, 32)
    store.save(item)
    assert tag(folder).exit_code == 0
    assert captions(folder)["two"] == "blue sky, ^_^"


def test_order_and_batch_size_do_not_matter(folder: Path) -> None:
    assert tag(folder, "-b", 1).exit_code == 0
    one = captions(folder)
    for path in (folder / "raw").glob("*.txt"):
        path.unlink()
    shutil.rmtree(folder / "raw/.atelier")
    assert tag(folder, "-b", 2).exit_code == 0
    assert captions(folder) == one


def test_mistakes_end_in_one_sentence(folder: Path) -> None:
    for arguments, words in (
        (("tag", folder / "raw", "--tagger", "wd-vit-v9"), "neither a tagger nor a folder"),
        (("tag", folder / "nowhere"), "there is no folder"),
        (("tag", folder / "tagger"), "there are no pictures"),
    ):
        result = prep(*arguments)
        assert result.exit_code == 1 and words in result.output and "Traceback" not in result.output
    assert tag(folder, "-t", 2).exit_code == 2
    with pytest.raises(UserError):
        list(Tag(tagger="nothing")(Store(folder / "raw").items(), Store(folder / "raw")))
