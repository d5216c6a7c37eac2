from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from prep.cli import main
from prep.decisions import ASIDE, KEPT
from prep.item import Item
from prep.store import Store


def clean(root: Path, *options: object) -> None:
    result = CliRunner().invoke(main, ["clean", str(root), "--no-report", "--no-check", *map(str, options)])
    assert result.exit_code == 0, result.output


def test_an_item_that_a_person_keeps_is_dropped_for_other_reasons_only() -> None:
    item = Item("a", Path("a.png"), stamps={KEPT: "duplicate marked"})
    item.drop("marked", "two marks")
    assert (item.dropped, item.detail) == ("", "")
    item.drop("truncated", "cut off")
    assert item.dropped == "truncated"
    item.drop("")
    assert item.dropped == ""


def test_clean_leaves_aside_what_a_person_set_aside_and_keeps_what_a_person_keeps(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    Image.new("RGB", (300, 300), (200, 40, 40)).save(raw / "large.png")
    Image.new("RGB", (60, 60), (40, 200, 40)).save(raw / "small.png")
    clean(raw, "--min-side", 100)
    store = Store(tmp_path / "raw-clean")
    items = {item.key: item for item in store.load()}
    reason = items["small"].dropped
    assert reason and not items["large"].dropped
    items["large"].drop(ASIDE)
    items["small"].stamps = {KEPT: reason}  # as bringing back does
    for item in items.values():
        store.save(item)
    clean(raw, "--min-side", 90)  # other options: what was set aside has another chance
    items = {item.key: item for item in store.load()}
    assert items["large"].dropped == ASIDE and items["small"].dropped == "" and (store.folder / "small.png").exists()
