import base64
import json
import shutil
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from PIL import Image

from prep.cli import main
from prep.decisions import ASIDE
from prep.review.overview import folders
from prep.review.strings import STRINGS
from tests.prep.review.conftest import Page


def prep(*arguments: object) -> None:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_the_gallery_lists_filters_and_sorts(page: Page) -> None:
    assert page.shown("") == "abc" and page.shown("red eyes") == "ab"
    assert page.shown("1girl AND NOT red_eyes") == "c" and page.shown("score(long_hair)<0.5") == "ac"
    assert page.shown("", sort="tags") == "cab"
    found = page.get("api/list", filter="red eyes", start=1)
    assert (found["total"], found["all"], [row["key"] for row in found["rows"]]) == (2, 3, ["b"])
    assert [key for key, _ in page.get("api/keys", **{"filter": "", "from": 1, "to": 3})] == ["b", "c"]


def test_sizes_are_known_of_pictures_that_no_command_has_seen(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with ExitStack() as stack:
        page = Page(tmp_path, stack)
        assert page.shown("width=30 AND height=20") == "a" and page.shown("") == "ab"
        found = page.get("api/item", key="a")
        assert (found["width"], found["height"]) == (30, 20)


def test_a_filter_or_order_that_cannot_be_read_is_told(page: Page) -> None:
    for query in ({"filter": "tokens>"}, {"filter": "score(nothing)>0"}, {"sort": "colour"}):
        answer = page.client.get("api/list", params=query)
        assert answer.status_code == 400 and answer.json()["error"]


def test_a_picture_is_told_with_scores_and_why_a_tag_is_not_there(page: Page) -> None:
    found = page.get("api/item", key="b")
    assert found["tags"] == ["1girl", "long hair", "red eyes"] and found["scores"]["long hair"] == 0.9
    assert [fate["tag"] for fate in found["fates"]] == [] and found["hand"] is False
    assert len(found["ends"]) == 3 and found["ends"][-1] == found["tokens"] and found["chunk"] == 75


def test_the_keyword_and_a_name_that_leaks_are_marked(page: Page) -> None:
    prep("keyword", page.folder, "-k", "sks", "--full-name", "mira vale")
    page.get("api/item", key="a")  # the page looks again at what a command has changed
    page.edit("a", "caption", text="sks, mira vale (atelier), 1girl")
    assert page.get("api/item", key="a")["roles"] == ["keyword", "leak", ""]
    assert page.post("api/tokens", key="a", text="1girl, sks").json()["roles"] == ["", "keyword"]


def test_a_caption_typed_here_is_a_persons_and_stays(page: Page) -> None:
    assert page.edit("a", "caption", text="mine,  my   own").status_code == 200
    assert page.text("a") == "mine, my own\n" and page.item("a").hand
    prep("caption", page.folder, "-t", "0.1")
    assert page.text("a") == "mine, my own\n" and page.text("c") != "1girl\n"


def test_a_caption_given_back_is_compiled_again(page: Page) -> None:
    page.edit("a", "caption", text="mine")
    page.edit("a", "caption", text="")
    assert page.text("a") is None and not page.item("a").hand
    prep("caption", page.folder)
    assert page.text("a") == "1girl, red eyes, hat\n"


def test_two_tabs_do_not_overwrite_each_other(page: Page) -> None:
    seen = page.versions("ab")
    assert page.edit("a", "caption", text="first tab").status_code == 200
    answer = page.post("api/edit", title="", versions=seen, edit={"kind": "caption", "text": "second tab"})
    assert answer.status_code == 409 and [row["text"] for row in answer.json()["rows"]] == ["first tab"]
    assert page.text("a") == "first tab\n" and page.text("b") != "second tab\n"  # all or nothing


def test_an_editor_or_command_that_writes_meanwhile_is_not_overwritten(page: Page) -> None:
    seen = page.versions("a")
    (page.folder / "a.txt").write_text("from vim\n", encoding="utf-8")
    answer = page.post("api/edit", title="", versions=seen, edit={"kind": "add", "tags": "x"})
    assert answer.status_code == 409 and answer.json()["rows"][0]["text"] == "from vim" and page.text("a") == "from vim\n"
    assert page.rows()[0]["text"] == "from vim"


def test_many_captions_are_changed_at_once_after_a_preview(page: Page) -> None:
    edit = {"kind": "replace", "old": "Red_Eyes", "new": "crimson eyes, glow"}
    before = {key: page.text(key) for key in "abc"}
    shown = page.post("api/preview", versions=page.versions("abc"), edit=edit).json()
    assert shown["count"] == 2 and {key: page.text(key) for key in "abc"} == before
    page.post("api/edit", title="", versions=page.versions("abc"), edit=edit)
    assert page.text("a") == "1girl, crimson eyes, glow, hat\n" and page.text("c") == before["c"]
    assert [change["after"] + "\n" for change in shown["changes"]] == [page.text("a"), page.text("b")]


@pytest.mark.parametrize(
    "edit",
    [{"kind": "regex", "pattern": "(", "new": ""}, {"kind": "regex", "pattern": "a", "new": r"\2"}, {"kind": "eat"}, {}, None, {"kind": "add"}],
)
def test_an_edit_that_cannot_be_done_is_told_and_does_nothing(page: Page, edit: object) -> None:
    for path in ("api/edit", "api/preview"):
        answer = page.post(path, title="", versions=page.versions("a"), edit=edit)
        assert answer.status_code == 400 and answer.json()["error"]
    assert page.text("a") == "1girl, red eyes, hat\n"


def test_undo_and_redo_hold_across_restarts(page: Page) -> None:
    page.edit("ab", "add", tags="smile")
    page.edit("a", "caption", text="other")
    with ExitStack() as stack:
        again = Page(page.folder, stack)
        assert again.post("api/turn", way="undo").json()["title"] == "caption" and again.text("a") == "1girl, red eyes, hat, smile\n"
        assert again.post("api/turn", way="undo").status_code == 200 and again.text("a") == "1girl, red eyes, hat\n"
        assert again.text("b") == "1girl, long hair, red eyes\n" and not again.item("a").hand
        assert again.post("api/turn", way="undo").status_code == 400
    with ExitStack() as stack:
        later = Page(page.folder, stack)
        later.post("api/turn", way="redo")
        later.post("api/turn", way="redo")
        assert later.text("a") == "other\n" and later.text("b").endswith("smile\n")
        assert later.post("api/turn", way="redo").status_code == 400


def test_an_undo_leaves_what_was_changed_since(page: Page) -> None:
    page.edit("ab", "add", tags="smile")
    (page.folder / "a.txt").write_text("newer\n", encoding="utf-8")
    done = page.post("api/turn", way="undo").json()
    assert done["stay"] == ["a"] and page.text("a") == "newer\n" and page.text("b") == "1girl, long hair, red eyes\n"


def test_a_picture_set_aside_stays_aside_and_comes_back(page: Page) -> None:
    page.edit("a", "aside", why="blurry")
    assert (page.item("a").dropped, page.item("a").detail) == (ASIDE, "blurry") and page.shown("set aside") == "a"
    prep("dedup", page.folder)
    assert page.item("a").dropped == ASIDE
    page.edit("a", "back")
    assert page.item("a").dropped == "" and page.shown("kept") == "abc"


def test_a_duplicate_that_is_brought_back_is_not_set_aside_again(page: Page) -> None:
    (page.folder / "a-copy.png").write_bytes((page.folder / "a.png").read_bytes())
    prep("dedup", page.folder)
    with ExitStack() as stack:
        again = Page(page.folder, stack)
        copies = again.get("api/item", key="a-copy")["copies"]
        assert {copy["key"]: copy["dropped"] for copy in copies} == {"a": "", "a-copy": "duplicate"} and again.shown("duplicate of a") == "a-copy"
        again.post("api/edit", title="", versions=again.versions("a-copy"), edit={"kind": "back"})
    prep("dedup", page.folder)
    assert page.item("a-copy").dropped == "" and page.item("a").dropped == ""


def test_another_copy_is_kept_instead_and_one_undo_takes_it_back(page: Page) -> None:
    (page.folder / "a-copy.png").write_bytes((page.folder / "a.png").read_bytes())
    prep("dedup", page.folder)
    with ExitStack() as stack:
        again = Page(page.folder, stack)
        versions = {copy["key"]: copy["version"] for copy in again.get("api/item", key="a")["copies"]}
        again.post("api/edit", title="", versions=versions, edit={"kind": "swap", "keep": "a-copy"})
        prep("dedup", page.folder)
        assert again.item("a").dropped == ASIDE and again.item("a").detail == "of a-copy" and again.item("a-copy").dropped == ""
        again.get("api/item", key="a")
        again.post("api/turn", way="undo")
        assert again.item("a").dropped == "" and again.item("a-copy").dropped == "duplicate"


def test_a_crop_is_kept_by_the_commands_and_one_outside_is_refused(page: Page) -> None:
    assert page.edit("a", "crop", crop=[2, 3, 22, 15]).status_code == 200
    prep("crop", page.folder, "--mode", "square", "--detector", "none")
    assert page.item("a").crop == (2, 3, 22, 15)
    for bad in ([0, 0, 25, 16], [5, 5, 5, 9], [-1, 0, 4, 4], [0, 0, 4], "all", [0.5, 0, 4, 4]):
        assert page.edit("b", "crop", crop=bad).status_code == 400
    page.edit("a", "crop", crop=None)
    assert page.item("a").crop is None


def test_strokes_become_the_mask_and_can_be_undone(page: Page) -> None:
    strokes = Image.new("L", (24, 16), 128)
    strokes.paste(0, (0, 0, 8, 16))
    buffer = BytesIO()
    strokes.convert("RGBA").save(buffer, "PNG")
    assert page.edit("a", "mask", png=base64.b64encode(buffer.getvalue()).decode()).status_code == 200
    with Image.open(page.folder / "a.mask.png") as mask:
        assert mask.size == (24, 16) and mask.getpixel((3, 5)) == 0 and mask.getpixel((12, 5)) == 255
    assert page.shown("masked") == "a"
    answer = page.client.get("mask", params={"key": "a"})
    assert Image.open(BytesIO(answer.content)).getpixel((3, 5)) == 0
    assert page.client.get("strokes", params={"key": "b"}).status_code == 204
    page.post("api/turn", way="undo")
    assert not (page.folder / "a.mask.png").exists()
    for bad in ("no base64!", base64.b64encode(b"no png").decode(), base64.b64encode(_png(3, 3)).decode()):
        assert page.edit("a", "mask", png=bad).status_code == 400


def _png(width: int, height: int) -> bytes:
    buffer = BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_repeats_are_kept_and_must_make_sense(page: Page) -> None:
    assert page.edit("ab", "repeats", times=2.5).status_code == 200 and page.item("b").emphasis == 2.5 and page.shown("repeats>2") == "ab"
    for bad in (0, -1, 1e9, True, "2", None):
        assert page.edit("a", "repeats", times=bad).status_code == 400


def test_a_picture_outside_the_folder_is_not_sent(page: Page, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    secret.write_bytes(_png(24, 16))
    (page.folder / "b.png").unlink()
    (page.folder / "b.png").symlink_to(secret)
    for path in ("picture", "thumb"):
        assert page.client.get(path, params={"key": "b"}).status_code == 400
        for key in ("../a", "a/../../a", str(secret), "", "items/a"):
            assert page.client.get(path, params={"key": key}).status_code == 400
    item = page.item("a")
    item.source = secret
    page.store.save(item)
    assert page.client.get("picture", params={"key": "a", "which": "raw"}).status_code == 400


def test_pictures_and_thumbnails_are_sent_and_a_damaged_one_is_told(page: Page) -> None:
    assert Image.open(BytesIO(page.client.get("picture", params={"key": "a"}).content)).size == (24, 16)
    assert page.client.get("thumb", params={"key": "a"}).headers["content-type"] == "image/jpeg"
    kept = page.store.hidden / "thumbs" / "a.jpg"
    first = kept.stat().st_mtime_ns
    page.client.get("thumb", params={"key": "a"})
    assert kept.stat().st_mtime_ns == first
    (page.folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert page.client.get("thumb", params={"key": "b"}).status_code == 404


def test_script_in_captions_and_names_travels_as_text(page: Page) -> None:
    evil = "<script>alert(1)</script>"
    page.edit("a", "caption", text=evil)
    answer = page.client.get("api/item", params={"key": "a"})
    assert answer.headers["content-type"] == "application/json" and answer.json()["text"] == evil
    assert page.client.get("api/item", params={"key": evil}).headers["content-type"] == "application/json"


def test_completion_knows_captions_tagger_and_aliases(page: Page) -> None:
    assert [each["tag"] for each in page.get("api/complete", q="red")] == ["red eyes"]
    assert page.get("api/complete", q="1gir")[0] == {"tag": "1girl", "count": 3} and page.get("api/complete", q="") == []
    assert {each["tag"] for each in page.get("api/complete", q="h")} >= {"hat", "long hair"}


def test_the_overview_counts_what_is_kept(page: Page) -> None:
    page.edit("c", "aside")
    found = page.get("api/overview")
    assert (found["pictures"], found["kept"], found["aside"]) == (3, 2, [[ASIDE, 1]])
    assert {row["tag"]: row["count"] for row in found["tags"]} == {"1girl": 2, "red eyes": 2, "hat": 1, "long hair": 1}
    names, table = found["together"]["tags"], found["together"]["table"]
    assert table[names.index("red eyes")][names.index("hat")] == 1 and table[names.index("1girl")][names.index("1girl")] == 2
    assert sum(count for *_, count in found["tokens"]) == 2 and sum(count for *_, count in found["buckets"]) == 2


def test_both_languages_say_all_that_the_scripts_ask_for(page: Page) -> None:
    import re

    folder = Path(__file__).parents[3] / "prep/review/page"
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.js")))
    html = (folder / "index.html").read_text(encoding="utf-8")
    asked = set(re.findall(r'\bt\("([^"]+)"', scripts)) | set(re.findall(r'data-(?:t|label|hint|title)="([^"]+)"', html))
    assert len(asked) > 60 and asked - set(STRINGS) == set()
    for key, words in STRINGS.items():
        assert set(words) == {"en", "ru"} and all(words.values())
        assert sorted(re.findall(r"\{\w+\}", words["en"])) == sorted(re.findall(r"\{\w+\}", words["ru"])), key
    assert json.loads(page.client.get("api/strings").text)["strings"] == STRINGS


def test_the_trees_folders_and_their_shares(page: Page, tmp_path: Path) -> None:
    assert page.get("api/overview")["folders"] == []
    tree = tmp_path / "tree"
    for name, count in (("img/3_mira girl", 2), ("img/1_mira hat", 4), ("reg/1_girl", 5)):
        (tree / name).mkdir(parents=True)
        for number in range(count):
            (tree / name / f"{number}.png").write_bytes(b"")
    library = SimpleNamespace(place=SimpleNamespace(is_project=True, tree=tree))
    assert folders(library) == [["img/1_mira hat", 4, 1, 0.4], ["img/3_mira girl", 2, 3, 0.6], ["reg/1_girl", 5, 1, 1.0]]  # type: ignore[arg-type]
    shutil.rmtree(tree / "img")
    assert folders(library) == []  # type: ignore[arg-type]
