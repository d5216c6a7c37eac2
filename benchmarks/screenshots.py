"""Draw the pictures of the pages that the documents show: `python benchmarks/screenshots.py DEMO`, where DEMO is a folder that `prep demo` has made.

Writes gallery.png, editor.png, overview.png and watch.png into docs/images; nothing in DEMO is changed. Needs Playwright and a Chromium, of
which ATELIER_BROWSER may give the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

IMAGES = Path(__file__).parents[1] / "docs/images"
WIDTH = 1200
COLOURS = 200  # of a picture, which is then a third as large


@contextmanager
def served(*command: str) -> Iterator[str]:
    """Run a command that serves a page, and yield its address."""
    with subprocess.Popen([sys.executable, "-m", *command, "--no-browser"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            yield process.stderr.readline().strip()
        finally:
            process.terminate()


def draw(page: Any, name: str, height: int) -> None:
    """Write what the page shows, once all its pictures are there."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_load_state("networkidle")
    page.mouse.move(0, 0)
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def review(page: Any) -> None:
    page.wait_for_selector(".cell >> nth=9")
    page.click("text=mira_00.png")
    page.keyboard.press("Control+a")
    page.select_option("#batch-kind", "replace")
    page.fill("[name=old]", "purple background")
    page.fill("[name=new]", "violet background")
    page.click("#side form [type=submit]")
    page.wait_for_selector(".changes ins")
    draw(page, "gallery", 700)
    page.click("text=mira_05.png")
    page.wait_for_selector("#side h2:text('mira_05.png')")
    page.fill("#add", "bl")
    page.wait_for_selector("#options li")
    draw(page, "editor", 760)
    page.click("#show-overview")
    page.wait_for_selector("#overview[open]")
    draw(page, "overview", 800)


def watch(page: Any) -> None:
    page.wait_for_selector("#curves svg")
    draw(page, "watch", 1500)


def main() -> None:
    from playwright.sync_api import sync_playwright

    if len(sys.argv) != 2 or not Path(sys.argv[1], "dataset.toml").exists():
        sys.exit(__doc__)
    IMAGES.mkdir(exist_ok=True)
    chromium = os.environ.get("ATELIER_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for command, drawn in ((("prep", "review"), review), (("train", "watch"), watch)):
            with served(*command, sys.argv[1]) as address:
                page = browser.new_page(viewport={"width": WIDTH, "height": 800}, locale="en-GB", color_scheme="light")
                page.goto(address)
                drawn(page)
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
