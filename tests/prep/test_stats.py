import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.item import Item
from prep.stats import Stats, shows_person, summarize
from prep.stats_page import BARS, bars, render
from prep.store import Store

CAPTIONS = {
    "a.png": "sks, 1girl, red eyes, <hat> & co",
    "b.png": "sks, 1girl, Red_Eyes",
    "c.png": "scenery, red eyes",
    "d.png": None,
}


def test_tags_are_counted_alone_and_with_the_keyword() -> None:
    summary = summarize(CAPTIONS, "sks")
    assert (summary.pictures, summary.captions, summary.with_keyword) == (4, 3, 2)
    assert [(row.tag, row.count, row.with_keyword) for row in summary.tags] == [
        ("red eyes", 3, 2), ("1girl", 2, 2), ("<hat> & co", 1, 1), ("scenery", 1, 0),
    ]  # fmt: skip
    assert [row.lift for row in summary.tags] == pytest.approx([1, 1.5, 1.5, 0])
    assert summary.once == {"<hat> & co": "a.png", "scenery": "c.png"}
    assert summary.without_person == ["c.png"] and summary.without_caption == ["d.png"]
    assert summary.tags_per_caption == pytest.approx(7 / 3)


@pytest.mark.parametrize("caption", ["1girl", "6+boys", "multiple girls", "solo", "a young woman in the rain", "woman", "two men", "several people"])
def test_people_are_found_in_tags_and_sentences(caption: str) -> None:
    assert shows_person(["outdoors", caption])


@pytest.mark.parametrize("caption", ["no humans", "scenery", "mandarin orange", "human skull", "boyish charm", "hat"])
def test_what_only_sounds_like_a_person_is_none(caption: str) -> None:
    assert not shows_person([caption])


@given(st.lists(st.lists(st.sampled_from("abcde")), min_size=1, max_size=8), st.sampled_from(["", "a"]))
def test_counts_agree_with_the_captions(rows: list[list[str]], keyword: str) -> None:
    captions: dict[str, str | None] = {str(number): ", ".join(row) for number, row in enumerate(rows)}
    summary = summarize(captions, keyword)
    for tag in set("abcde") - {keyword}:
        count = next((row.count for row in summary.tags if row.tag == tag), 0)
        assert count == sum(tag in row for row in rows)
        assert (tag in summary.once) == (count == 1)
    assert all(row.with_keyword <= min(row.count, summary.with_keyword) for row in summary.tags)


def test_the_page_is_whole_escaped_and_needs_no_network() -> None:
    page = render(summarize(CAPTIONS, "sks"), "my <folder>")
    assert "&lt;hat&gt; &amp; co" in page and "<hat>" not in page and "my &lt;folder&gt;" in page
    assert "http" not in page and "<script" not in page
    drawn = ElementTree.fromstring(bars(summarize(CAPTIONS, "sks").tags))
    widths = [float(rect.get("width", 0)) for rect in drawn.iter("rect") if rect.get("class") == "bar"]
    assert len(widths) == 4 and widths == sorted(widths, reverse=True) and widths[0] == pytest.approx(3 * widths[-1], rel=0.01)
    many = render(summarize({f"{n}": f"tag{n}, tag{n // 2}" for n in range(2 * BARS)}), "x")
    assert many.count("class='bar'") == BARS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (name, caption) in enumerate(CAPTIONS.items()):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
        Store(tmp_path).save(Item(name[0], tmp_path / name, keyword="sks"))
        if caption:
            (tmp_path / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    return tmp_path


def stats(*arguments: object) -> Result:
    return CliRunner().invoke(Stats.command("stats"), [str(argument) for argument in arguments])


def test_the_command_prints_a_table_or_json_and_writes_the_page(folder: Path) -> None:
    result = stats(folder)
    assert result.exit_code == 0
    assert "3 of 4 pictures have a caption" in result.output and "2 captions hold the keyword sks" in result.output
    assert "1 captions name no person: c.png" in result.output
    assert "<svg" in (Store(folder).hidden / "stats.html").read_text(encoding="utf-8")
    result = stats(folder, "--json", "--html", folder / "page.html")
    data = json.loads(result.output)
    assert data["tags"][0] == {"tag": "red eyes", "count": 3, "share": 1.0, "with_keyword": 2, "lift": 1.0}
    assert (folder / "page.html").exists()


def test_what_is_set_aside_does_not_count_and_an_empty_folder_is_a_sentence(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    Store(folder).save(Item("c", folder / "c.png", dropped="duplicate"))
    assert json.loads(stats(folder, "--json").output)["pictures"] == 3
    result = stats(tmp_path_factory.mktemp("empty"))
    assert result.exit_code == 1 and "no pictures" in str(result.exception)
