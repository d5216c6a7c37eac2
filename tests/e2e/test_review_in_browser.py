"""What a person does on the pages of `prep review` and `train watch`, in Chromium; after each deed the files are what the page shows.

The browser is the first of CHROMIUMS on the path, or what ATELIER_BROWSER names. One browser and one `prep review` serve all tests: each
works on pictures of its own, and takes back nothing but its own edits.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prep.item import Item
from prep.masks import loss_mask, painted_path
from prep.store import Store

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("ATELIER_BROWSER") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
api = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser: pip install 'lora-atelier[test]'")
if CHROMIUM is None:
    pytest.skip(f"needs a browser, and there is none of {', '.join(CHROMIUMS)} on the path; ATELIER_BROWSER may name one", allow_module_level=True)

WAIT = 20_000  # ms, for a busy machine
api.expect.set_options(timeout=WAIT)
SIZE = (320, 240)
SCRIPT = "<script>hacked = 1<script>"
EVIL = "<img src=x onerror=hacked=1>"  # as a file's name it needs no slash
CAPTIONS = {
    **dict.fromkeys(("words", "adding", "order", "drag", "crop", "mask", "aside", "tab", "late"), "1girl, solo, long hair"),
    **{f"many {n}": f"1girl, {n} birds, smile" for n in range(3)},
    **{f"range {n}": "landscape" for n in range(5)},
    EVIL: f"{SCRIPT}, {EVIL}",
    "other": "wide smile, landscape",
}


@contextmanager
def served(*command: str | Path) -> Iterator[str]:
    """Run a command that serves a page, and yield its address."""
    with subprocess.Popen([sys.executable, "-m", *map(str, command), "--no-browser"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            address = process.stderr.readline().strip()
            assert address.startswith("http://127.0.0.1:"), address + process.stderr.read()
            yield address
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "pictures"
    folder.mkdir()
    for number, (key, text) in enumerate(CAPTIONS.items()):
        Image.new("RGB", SIZE, (90, 10 * number, 200)).save(folder / f"{key}.png")
        (folder / f"{key}.txt").write_text(f"{text}\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def review(folder: Path) -> Iterator[str]:
    with served("prep", "review", folder) as address:
        yield address


Opener = Callable[[str], Any]


@pytest.fixture
def tab(browser: Any) -> Iterator[Opener]:
    """Open tabs; a fault of a page's script, or one that its policy forbids, fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, locale="en-GB")
    context.set_default_timeout(WAIT)
    faults: list[str] = []

    def told(message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # answers of 409 are meant to be there
            faults.append(message.text)

    def opened(address: str) -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", told)
        page.goto(address)
        return page

    yield opened
    context.close()
    assert not faults


class Desk:
    """A tab of `prep review` as a person handles it."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.chips, self.cells, self.add = page.locator(".chip"), page.locator(".cell"), page.locator("#add")
        api.expect(page.locator("#count")).to_have_text(f"{len(CAPTIONS)} of {len(CAPTIONS)}")
        api.expect(page.locator("#side h2")).not_to_be_empty()

    def cell(self, key: str) -> Any:
        return self.cells.filter(has=self.page.get_by_text(f"{key}.png", exact=True))

    def choose(self, key: str) -> Desk:
        self.cell(key).click()
        api.expect(self.page.locator("#side h2")).to_have_text(f"{key}.png")
        return self

    def again(self, key: str) -> Desk:
        """Load the page anew and choose the picture."""
        self.page.reload()
        return Desk(self.page, self.folder).choose(key)

    def filter(self, text: str, count: int) -> None:
        self.page.fill("#filter", text)
        api.expect(self.page.locator("#count")).to_have_text(f"{count} of {len(CAPTIONS)}")
        api.expect(self.cells).to_have_count(count)

    def shows(self, *tags: str) -> None:
        api.expect(self.chips).to_have_text(list(tags))

    @contextmanager
    def saving(self, status: int = 200, path: str = "edit") -> Iterator[None]:
        """Do something after which the server has answered, and so the disk holds it."""
        with self.page.expect_response(f"**/api/{path}") as answer:
            yield
        assert answer.value.status == status

    def open(self, view: str) -> Any:
        """Show the picture in full and return the drawing to be cropped or painted on."""
        self.page.locator("#side").get_by_role("button", name="Open").click()
        self.page.locator("#stage header").get_by_role("button", name=view).click()
        return self.page.locator("#stage canvas")

    def drag(self, canvas: Any, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Drag between two places of a drawing, told in pixels of the picture."""
        box = canvas.bounding_box()
        (x0, y0), (x1, y1) = ((box["x"] + x * box["width"] / SIZE[0], box["y"] + y * box["height"] / SIZE[1]) for x, y in (start, end))
        self.page.mouse.move(x0, y0)
        self.page.mouse.down()
        self.page.mouse.move(x1, y1, steps=4)
        self.page.mouse.up()

    def text(self, key: str) -> str:
        return (self.folder / f"{key}.txt").read_text(encoding="utf-8")

    def item(self, key: str) -> Item:
        item = Store(self.folder).get(key)
        assert item
        return item


@pytest.fixture
def desk(tab: Opener, review: str, folder: Path) -> Desk:
    return Desk(tab(review), folder)


def test_a_caption_is_edited_as_text(desk: Desk) -> None:
    desk.choose("words").page.get_by_role("button", name="As text").click()
    area = desk.page.locator("#text")
    api.expect(area).to_have_value("1girl, solo, long hair")
    area.fill("A girl stands, her hair is long.")
    with desk.saving():
        desk.page.keyboard.press("Control+Enter")
    assert desk.text("words") == "A girl stands, her hair is long.\n" and desk.item("words").hand
    desk.again("words").shows("A girl stands", "her hair is long.")


def test_a_tag_is_added_with_completion(desk: Desk) -> None:
    desk.choose("adding").add.press_sequentially("land")
    api.expect(desk.page.locator("#options li")).to_have_text(["landscape6"])  # the tag and how often it is there
    desk.add.press("ArrowDown")
    with desk.saving():
        desk.add.press("Enter")
    desk.shows("1girl", "solo", "long hair", "landscape")
    api.expect(desk.page.locator("#add")).to_be_focused()
    assert desk.text("adding") == "1girl, solo, long hair, landscape\n"
    desk.again("adding").shows("1girl", "solo", "long hair", "landscape")


def test_tags_are_ordered_by_keys(desk: Desk) -> None:
    desk.choose("order").chips.nth(2).focus()
    with desk.saving():
        desk.page.keyboard.press("Alt+ArrowLeft")
    desk.shows("1girl", "long hair", "solo")
    api.expect(desk.chips.nth(1)).to_be_focused()
    with desk.saving():
        desk.page.keyboard.press("Delete")
    desk.shows("1girl", "solo")
    assert desk.text("order") == "1girl, solo\n"
    desk.again("order").shows("1girl", "solo")


def test_tags_are_ordered_by_dragging(desk: Desk) -> None:
    desk.choose("drag")
    with desk.saving():
        desk.chips.nth(2).drag_to(desk.chips.nth(0))
    desk.shows("long hair", "1girl", "solo")
    assert desk.text("drag") == "long hair, 1girl, solo\n"
    desk.again("drag").shows("long hair", "1girl", "solo")


def test_many_captions_are_changed_after_a_preview_and_that_is_undone_and_done_again(desk: Desk) -> None:
    before = {key: desk.text(key) for key in CAPTIONS}
    desk.filter("smile", 3)
    desk.page.locator("#gallery").press("Control+a")
    api.expect(desk.page.locator("#side h2")).to_have_text("3 selected")
    desk.page.select_option("#batch-kind", "replace")
    desk.page.get_by_label("This tag").fill("smile")
    desk.page.get_by_label("By this").fill("grin, teeth")
    desk.page.get_by_role("button", name="Preview").click()
    api.expect(desk.page.locator(".changes ins")).to_have_text(["grin", "teeth"] * 3)
    api.expect(desk.page.locator(".changes del")).to_have_text(["smile"] * 3)
    assert {key: desk.text(key) for key in CAPTIONS} == before
    after = before | {f"many {n}": f"1girl, {n} birds, grin, teeth\n" for n in range(3)}
    with desk.saving():
        desk.page.get_by_role("button", name="Change 3 captions").click()
    assert {key: desk.text(key) for key in CAPTIONS} == after
    for keys, state in (("Control+z", before), ("Control+Shift+z", after)):
        with desk.saving(path="turn"):
            desk.page.locator("#gallery").press(keys)
        assert {key: desk.text(key) for key in CAPTIONS} == state
    desk.again("many 1").shows("1girl", "1 birds", "grin", "teeth")
    with desk.saving(path="turn"):
        desk.page.locator("#undo").click()
    desk.shows("1girl", "1 birds", "smile")
    assert {key: desk.text(key) for key in CAPTIONS} == before


def test_a_crop_is_drawn_and_moved_with_the_mouse(desk: Desk) -> None:
    canvas = desk.choose("crop").open("Crop")
    desk.drag(canvas, (40, 30), (200, 150))
    desk.drag(canvas, (100, 90), (120, 100))
    with desk.saving():
        desk.page.get_by_role("button", name="Save").click()
    assert np.abs(np.subtract(desk.item("crop").crop or (), (60, 40, 220, 160))).max() <= 1
    desk.again("crop").open("Crop")
    api.expect(desk.cell("crop").locator("i")).to_have_text(["crop", "hand"])
    numbers = [int(each.input_value()) for each in desk.page.locator("#stage input[type=number]").all()]
    assert tuple(numbers) == desk.item("crop").crop


def test_a_mask_is_painted(desk: Desk) -> None:
    canvas = desk.choose("mask").open("Mask")
    desk.drag(canvas, (60, 120), (200, 120))
    with desk.saving():
        desk.page.get_by_role("button", name="Save").click()
    with Image.open(painted_path("mask", Store(desk.folder))) as image:
        strokes = np.asarray(image)
    mask = loss_mask(desk.item("mask"))
    assert mask and set(np.unique(strokes)) == {0, 128} and strokes.shape == SIZE[::-1]
    assert (strokes[120, 62:198] == 0).all() and (strokes[[60, 180]] == 128).all() and ((np.asarray(mask) == 0) == (strokes == 0)).all()
    desk.again("mask").open("Mask")
    red = "([x, y]) => { const at = document.querySelector('#stage canvas').getContext('2d').getImageData(x, y, 1, 1).data; return at[0] > at[2]; }"
    desk.page.wait_for_function(red, arg=[130, 120])
    assert not desk.page.evaluate(red, [130, 60])


def test_a_picture_is_set_aside_and_brought_back(desk: Desk) -> None:
    desk.choose("aside")
    with desk.saving():
        desk.page.keyboard.press("x")
    api.expect(desk.cell("aside")).to_contain_text("by hand")
    assert desk.item("aside").dropped == "by_hand"
    desk.again("aside")
    with desk.saving():
        desk.page.get_by_role("button", name="Bring back").click()
    api.expect(desk.cell("aside")).not_to_contain_text("by hand")
    assert desk.item("aside").dropped == "" and desk.text("aside") == "1girl, solo, long hair\n"
    api.expect(desk.again("aside").page.get_by_role("button", name="Set aside")).to_be_visible()


def test_pictures_are_filtered_and_a_filter_that_cannot_be_read_is_told(desk: Desk) -> None:
    desk.filter("landscape AND NOT (solo OR wide*)", 5)
    api.expect(desk.cells.locator("b")).to_have_text([f"range {n}.png" for n in range(5)])
    desk.page.fill("#filter", "tokens>")
    api.expect(desk.page.locator("#fault")).to_contain_text("the filter ends")
    desk.filter("", len(CAPTIONS))
    api.expect(desk.page.locator("#fault")).to_be_hidden()


def test_a_range_is_selected_by_mouse_and_keys(desk: Desk) -> None:
    desk.filter("name:range*", 5)
    chosen = desk.page.locator(".cell[aria-selected=true] b")
    desk.choose("range 1").cell("range 3").click(modifiers=["Shift"])
    api.expect(chosen).to_have_text(["range 1.png", "range 2.png", "range 3.png"])
    desk.choose("range 2").page.keyboard.press("Shift+End")
    api.expect(chosen).to_have_text(["range 2.png", "range 3.png", "range 4.png"])
    desk.page.keyboard.press(" ")
    api.expect(desk.page.locator("#side h2")).to_have_text("2 selected")


def test_two_tabs_do_not_overwrite_each_other(desk: Desk, tab: Opener, review: str) -> None:
    other = Desk(tab(review), desk.folder)
    for each in (desk, other):
        each.choose("tab").shows("1girl", "solo", "long hair")
    desk.add.fill("hat")
    with desk.saving():
        desk.add.press("Enter")
    other.add.fill("umbrella")
    with other.saving(status=409):
        other.add.press("Enter")
    api.expect(other.page.locator(".conflict")).to_contain_text("1girl, solo, long hair, umbrella")
    other.shows("1girl", "solo", "long hair", "hat")
    assert desk.text("tab") == "1girl, solo, long hair, hat\n"
    with other.saving():
        other.page.get_by_role("button", name="Save mine").click()
    assert desk.text("tab") == "1girl, solo, long hair, umbrella\n"
    desk.again("tab").shows("1girl", "solo", "long hair", "umbrella")


def test_an_answer_that_comes_late_does_not_take_a_person_back(desk: Desk) -> None:
    held: list[Any] = []
    desk.choose("late").page.route("**/api/edit", lambda route: held.append(route))
    desk.add.fill("hat")
    with desk.page.expect_request("**/api/edit"):
        desk.add.press("Enter")
    desk.choose("other")
    with desk.saving():
        held.pop().continue_()
    api.expect(desk.page.locator("#status")).to_have_text("Saved: 1")
    api.expect(desk.page.locator("#side h2")).to_have_text("other.png")
    desk.shows("wide smile", "landscape")
    assert desk.text("late") == "1girl, solo, long hair, hat\n" and desk.text("other") == "wide smile, landscape\n"
    desk.page.route("**/api/item?*", lambda route: held.append(route))
    with desk.page.expect_request("**/api/item?*"):
        desk.cell("late").click()
    desk.page.locator("#gallery").press("Control+a")
    api.expect(desk.page.locator("#side h2")).to_have_text(f"{len(CAPTIONS)} selected")
    with desk.page.expect_response("**/api/item?*") as answer:
        held.pop().continue_()
    answer.value.finished()
    api.expect(desk.page.locator("#batch-kind")).to_be_visible()


def test_markup_in_captions_and_names_is_text(desk: Desk) -> None:
    desk.choose(EVIL).shows(SCRIPT, EVIL)
    desk.page.get_by_role("button", name="As text").click()
    api.expect(desk.page.locator("#text")).to_have_value(f"{SCRIPT}, {EVIL}")
    desk.page.keyboard.press("Escape")
    desk.page.locator("#show-overview").click()
    api.expect(desk.page.locator("#overview td", has_text=EVIL)).to_be_visible()
    desk.page.keyboard.press("Escape")
    desk.page.locator("#gallery").press("Control+a")
    desk.page.get_by_label("Tags, by commas").fill(SCRIPT)
    desk.page.get_by_role("button", name="Preview").click()
    api.expect(desk.page.locator(".changes ins").first).to_have_text(SCRIPT)
    assert desk.page.evaluate("[typeof hacked, document.querySelectorAll('body script, img[onerror]').length]") == ["undefined", 0]
    assert desk.text(EVIL) == f"{SCRIPT}, {EVIL}\n"


def run_of(folder: Path, finished: bool) -> Path:
    """Write what a run of 20 steps leaves, or has left so far."""
    from train.fingerprint import MARK

    (folder / "dataset.toml").write_text('[project]\nname = "mira"\n', encoding="utf-8")
    lora = folder / "lora"
    lora.mkdir()
    facts = {"mean_loss": 0.5, "grad_norm": 0.1, "lr_unet": 1e-4, "seconds": 0.5}
    records = [{"step": step, "epoch": 1 + step // 10, "loss": 1 / step, **facts} for step in range(1, 21)]
    (lora / "mira.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    Image.new("RGB", (64, 64)).save(lora / "mira-samples-00000010.png")
    Image.new("RGB", (64, 64), "red").save(lora / "mira-samples-00000020.png")
    if finished:
        header = json.dumps({"__metadata__": {MARK: json.dumps({"steps": 20, "loss": 0.5})}}).encode()
        (lora / "mira.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return lora


def test_a_finished_run_is_watched(tab: Opener, tmp_path: Path) -> None:
    run_of(tmp_path, finished=True)
    with served("train", "watch", tmp_path) as address:
        page = tab(address)
        api.expect(page.locator("#head")).to_contain_text("finished")
        api.expect(page.locator("#curves figure.chart")).to_have_count(3)
        line = page.locator("#curves .chart > svg path").first
        assert line.bounding_box()["width"] > 200 and line.evaluate("node => getComputedStyle(node).stroke") == "rgb(0, 114, 178)"
        api.expect(page.locator("#at")).to_have_text("step 20")
        page.locator("#slider").press("ArrowLeft")
        api.expect(page.locator("#at")).to_have_text("step 10")
        api.expect(page.locator("#sheet")).to_have_js_property("naturalWidth", 64)
        api.expect(page.locator("#stop")).to_be_hidden()
        page.select_option("#language", "ru")
        api.expect(page.locator("#curves figcaption").first).to_contain_text("Потери при обучении")
        api.expect(page.locator("#h-settings")).to_have_text("Настройки")


def test_a_running_run_is_watched_and_asked_to_stop(tab: Opener, tmp_path: Path) -> None:
    lora = run_of(tmp_path, finished=False)
    with served("train", "watch", tmp_path) as address:
        page = tab(address)
        api.expect(page.locator("#head")).to_contain_text("step 20")
        page.locator("#stop").click()
        api.expect(page.locator("#asked")).to_have_text("The run will end with this epoch.")
        assert (lora / "mira.control").read_text(encoding="utf-8").strip() == "stop"
        page.reload()
        page.locator("#none").click()
        api.expect(page.locator("#asked")).to_be_empty()
        assert (lora / "mira.control").read_text(encoding="utf-8").strip() == "none"
        with (lora / "mira.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": 21, "epoch": 3, "loss": 0.1, "mean_loss": 0.4, "seconds": 0.5}) + "\n")
        api.expect(page.locator("#head")).to_contain_text("step 21")
