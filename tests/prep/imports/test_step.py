import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from prep.cli import main
from prep.imports import any_kept, kept
from prep.imports.step import Beside, Import, lies_beside
from prep.item import Item
from prep.project import Place
from prep.store import Store


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dataset.toml").write_text("[project]\n", encoding="utf-8")
    (tmp_path / "raw").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.effect_noise((256, 256), 50).convert("RGB").save(tmp_path / "raw" / name)
    (tmp_path / "raw/a.txt").write_text("artist:someone general:1girl general:long_hair", encoding="utf-8")
    (tmp_path / "raw/b.png.json").write_text(json.dumps({"tag_string_general": "1boy solo", "rating": "g"}), encoding="utf-8")
    (tmp_path / "raw/c.txt").write_text("my own words, about it", encoding="utf-8")
    return tmp_path


def prep(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def imported(*arguments: object) -> Result:
    return CliRunner().invoke(Import.command("import"), [str(argument) for argument in arguments])


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_lies_beside_the_raw_pictures_reaches_the_captions(project: Path) -> None:
    raw = files(project / "raw")
    assert prep("clean", project).exit_code == 0
    for _ in range(2):
        result = imported(project)
        assert result.exit_code == 0, result.output
        assert "imported for 3 pictures" in result.output and "1 by danbooru" in result.output and "1 by grabber" in result.output
    store = Store(project / "work")
    assert kept(store.hidden, "a") == {"artist": ["someone"], "general": ["1girl", "long_hair"]}
    assert kept(store.hidden, "b") == {"general": ["1boy", "solo"], "rating": ["general"]}
    assert kept(store.hidden, "c") == {}
    captions = {item.key: item.imported_caption for item in store.load()}
    assert captions == {"a": None, "b": None, "c": "my own words, about it"}
    assert prep("caption", project).exit_code == 0
    assert [(project / f"work/{key}.txt").read_text(encoding="utf-8") for key in "abc"] == [
        "1girl, someone, long hair\n",
        "1boy, solo\n",
        "my own words, about it\n",
    ]
    assert files(project / "raw") == raw


def test_running_twice_changes_nothing_and_what_is_gone_is_forgotten(project: Path) -> None:
    assert prep("clean", project).exit_code == 0
    assert imported(project).exit_code == 0
    before = files(project / "work")
    assert imported(project).exit_code == 0
    assert files(project / "work") == before
    (project / "raw/b.png.json").unlink()
    assert imported(project).exit_code == 0
    assert kept(Store(project / "work").hidden, "b") == {} and any_kept(Store(project / "work").hidden)


def test_one_kind_alone_and_nothing_at_all(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert prep("clean", project).exit_code == 0
    assert "1 pictures: 1 by danbooru" in imported(project, "--kind", "danbooru").output
    (project / "raw/a.txt").write_text("long hair blue eyes", encoding="utf-8")
    result = imported(project, "--kind", "grabber")
    assert result.exit_code == 1 and "--separator" in str(result.exception)
    assert imported(project, "--kind", "grabber", "--separator", "space").exit_code == 0
    bare = tmp_path_factory.mktemp("bare")
    Image.new("RGB", (8, 8)).save(bare / "x.png")
    result = imported(bare)
    assert result.exit_code == 1 and "nothing was found" in str(result.exception)


def test_on_a_bare_folder_nothing_of_the_users_is_written_over(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    (tmp_path / "x.txt").write_text("1girl long_hair", encoding="utf-8")
    assert imported(tmp_path).exit_code == 0
    assert prep("caption", tmp_path).exit_code == 0
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "1girl long_hair"
    assert next(iter(Store(tmp_path).load())).hand


def test_a_picture_with_a_source_elsewhere_is_read_there(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "work").mkdir()
    for folder in ("raw", "work"):
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "x.png")
    (tmp_path / "raw/x.png.json").write_text('{"tags": ["smile"]}', encoding="utf-8")
    Store(tmp_path / "work").save(Item("x", tmp_path / "work/x.png", source=tmp_path / "raw/x.png"))
    assert imported(tmp_path / "work").exit_code == 0
    assert kept(Store(tmp_path / "work").hidden, "x") == {"general": ["smile"]}


def test_a_caption_that_we_wrote_is_no_import(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    (tmp_path / "x.png.json").write_text('{"tags": ["smile"]}', encoding="utf-8")
    assert imported(tmp_path).exit_code == 0 and prep("caption", tmp_path).exit_code == 0
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "smile\n"  # a lone word, as a log may be
    (tmp_path / "x.png.json").unlink()
    result = imported(tmp_path)
    assert result.exit_code == 1 and kept(Store(tmp_path).hidden, "x") == {} and next(iter(Store(tmp_path).load())).imported_caption is None


def test_what_is_said_of_a_picture_is_not_said_of_its_parts(project: Path) -> None:
    assert prep("clean", project).exit_code == 0
    store = Store(project / "work")
    Image.new("RGB", (8, 8)).save(project / "work/b-head.png")
    store.save(Item("b-head", project / "work/b-head.png", source=project / "raw/b.png", parent="b", stage="head"))
    assert imported(project).exit_code == 0
    assert kept(store.hidden, "b") and not kept(store.hidden, "b-head")


def test_a_whole_run_takes_what_lies_beside_and_misses_nothing(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert lies_beside(project / "raw") and not lies_beside(tmp_path_factory.mktemp("bare")) and not lies_beside(project / "nowhere")
    assert prep("clean", project).exit_code == 0
    place = Place.open(project)
    Beside.configured(place).main(place)
    assert kept(Store(project / "work").hidden, "b")
    for path in (project / "raw").iterdir():
        if path.suffix != ".png":
            path.unlink()
    Beside.configured(place).main(place)
    assert not any_kept(Store(project / "work").hidden)
