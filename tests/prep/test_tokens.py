"""Token counts: the ledger, the recommendation, what is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.captions import join, parse
from prep.cli import main
from prep.clip_bpe import LENGTHS, count
from prep.item import Item
from prep.store import STORE, Store
from prep.tokens import Entry, entry, fit, histogram, recommend, tags_beyond

FEW = ["1girl", "long hair", "^_^", "very long hair", "hatsune miku", "x_x"]
TAGS = st.lists(st.sampled_from(["1girl", "very long hair", "^_^", "(o)_(o)", "skadi (arknights)", ":d", "smile", "日本語"]), max_size=90)


def folder(root: Path, *captions: str | None) -> Path:
    for number, caption in enumerate(captions):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / f"p{number}.png")
        if caption is not None:
            (root / f"p{number}.txt").write_text(caption, encoding="utf-8")
    return root


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["tokens", *args])
    return result.exit_code, result.output


@given(TAGS, st.sampled_from(LENGTHS))
@settings(max_examples=150, deadline=None)
def test_what_is_not_beyond_fits_and_one_tag_more_would_not(tags: list[str], length: int) -> None:
    beyond = tags_beyond(join(tags), length)
    whole = tags[: len(tags) - len(beyond)]
    assert whole + beyond == tags and count(join(whole)) <= length
    assert not beyond or count(join([*whole, beyond[0]])) > length


@pytest.mark.parametrize(("longest", "best"), [(0, 75), (75, 75), (76, 150), (150, 150), (151, 225), (225, 225), (226, None)])
def test_the_smallest_length_that_holds_all_is_recommended(longest: int, best: int | None) -> None:
    assert recommend([Entry("a", 3, [3], {}, {}), Entry("b", longest, [], {}, {})]) == best


def test_the_ledger(tmp_path: Path) -> None:
    long = "tk" + ", smile" * 40
    folder(tmp_path, "tk, 1girl", long, None)
    code, output = run(str(tmp_path))
    assert code == 0 and "max_token_length 150" in output and "p2" in output
    ledger = json.loads((tmp_path / STORE / "tokens.json").read_text(encoding="utf-8"))
    assert ledger["max_token_length"] == 150 and ledger["without_caption"] == ["p2"]
    first, second = ledger["captions"]
    assert (first["tokens"], first["beyond"]) == (count("tk, 1girl"), {})
    assert second["tokens"] == 81 and second["beyond"]["75"] == parse(long)[38:]


def test_json_on_stdout(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["tokens", "--json", str(folder(tmp_path, "tk"))])
    assert json.loads(result.stdout)["max_token_length"] == 75


def test_captions_no_setting_can_hold_are_named(tmp_path: Path) -> None:
    code, output = run(str(folder(tmp_path, "tk", "tk" + ", smile" * 120)))
    assert code == 1 and "p1 (241)" in output and "p0" not in output.splitlines()[-1]


def test_dropped_pictures_are_not_counted(tmp_path: Path) -> None:
    folder(tmp_path, "tk", "tk" + ", smile" * 120)
    Store(tmp_path).save(Item("p1", tmp_path / "p1.png", dropped="duplicate"))
    assert run(str(tmp_path))[0] == 0


def test_no_captions_at_all(tmp_path: Path) -> None:
    code, output = run(str(folder(tmp_path, None)))
    assert code == 1 and "prep tag" in output


def test_a_caption_in_another_encoding_is_named(tmp_path: Path) -> None:
    (folder(tmp_path, "tk") / "p0.txt").write_bytes("tk, été".encode("latin-1"))
    code, output = run(str(tmp_path))
    assert code == 1 and "p0.txt" in output and "UTF-8" in output


def test_a_tag_that_a_boundary_cuts_in_two_is_named() -> None:
    tags = ["solo"] * 37 + ["long hair"]  # 37 tags and as many commas are 74 tokens, so that "long" is the 75th and "hair" the 76th
    row = entry("a", ", ".join(tags))
    assert row.tokens == 76 and row.rows == [75, 1]
    assert row.straddling == {75: "long hair"} and row.beyond == {75: ["long hair"]}
    between = entry("b", ", ".join([*tags[:37], "cat", "long hair"]))
    assert between.straddling == {} and between.beyond == {75: ["long hair"]}


@given(
    st.lists(st.sampled_from(["1girl", "long hair", "^_^", "very long hair", "hatsune miku", "x_x"]), unique=True),
    st.integers(1, 20),
    st.integers(0, 3),
)
def test_a_caption_is_made_to_fit_by_its_weakest_tags(tags: list[str], limit: int, keep: int) -> None:
    weakest = sorted(tags)
    kept, dropped = fit(tags, limit, keep, weakest)
    assert kept == [tag for tag in tags if tag not in dropped] and kept[:keep] == tags[:keep]
    assert dropped == [tag for tag in weakest if tag in dropped], "the weakest goes first"
    assert count(", ".join(kept)) <= limit or kept == tags[:keep]
    if dropped:
        before = [tag for tag in tags if tag not in dropped[:-1]]
        assert count(", ".join(before)) > limit, "no more than needed"


def test_the_histogram_shows_where_rows_end() -> None:
    lines = histogram([1, 15, 16, 75, 76, 76]).splitlines()
    assert [line.split()[0] for line in lines] == ["1-15", "16-30", "31-45", "46-60", "61-75", "76-90"]
    assert [line.count("#") for line in lines] == [40, 20, 0, 0, 20, 40] and "|" in lines[4] and "|" not in lines[3]
    assert histogram([0]).count("#") == 40
