"""The page of a run as a browser has it: whole, without anything from outside, and right in what its curves say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from train.curves import Axis, Chart, Line, cleaned, draw, even_ticks, log_ticks, nearest, thinned, y_axis
from train.report import curves
from train.report_images import SHEETS_ROOM, sheet_uris, spread, thumb_uris
from train.report_page import duration, rates_of, render

VOID = {"img", "meta", "input"}


class Page(HTMLParser):
    """Whether all tags close, which ids there are, and what the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.sections: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        self.ids += [values["id"] or ""] if "id" in values else []
        self.sections += [values["id"] or ""] if tag == "section" else []
        self.fetched += [values[key] or "" for key in ("src", "href") if key in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def report(**more: Any) -> dict[str, Any]:
    records = [
        {"step": n, "epoch": 1 + n // 10, "loss": 1 / n, "mean_loss": 1 / n, "grad_norm": None if n == 5 else 0.1 * n, "lr_unet": 1e-4, "lr_te": 1e-4}
        for n in range(1, 41)
    ]
    held = [
        {
            "step": n,
            "epoch": n // 10,
            "loss": loss,
            "base": 1.0,
            "band": band,
            "learned": 1 - loss,
            "needs_keyword": 0.1,
            "bleed": None,
            "score": loss,
        }
        for n, loss, band in ((10, 0.6, 0.1), (20, 0.4, 0.1), (30, 0.5, None), (40, 0.7, 0.2))
    ]
    found = {
        "name": "mira", "state": "finished", "verdict": None, "validation": held, "curves": curves(records), "summary": {}, "settings": {},
        "progress": {"step": 40, "steps": 40, "epoch": 4, "mean_loss": 0.1, "seconds": 61.0},
        "changed": [], "norms": {}, "pictures": [], "samples": [], "files": [],
    }  # fmt: skip
    return {**found, **more}


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    for n in (10, 20):
        Image.effect_noise((300, 200), 60).save(tmp_path / f"mira-samples-{n}.png")
    Image.new("RGB", (40, 90), "teal").save(tmp_path / "a&b.png")
    page = Page(
        render(
            report(
                samples=[{"file": f"mira-samples-{n}.png", "step": n} for n in (10, 20, 30)],  # the last one is not there
                pictures=[{"path": "a&b.png", "improvement": 0.5, "keyword": None, "verdict": "", "cut_tags": ["<b>"]}, {"path": "lost.png"}],
                norms={"measure": "norm", "blocks": {"unet_mid_block": 0.5, "te": None}},
                settings={"seed": 1, "keyword": "</td><script>"},
                changed=["seed", "keyword"],
                summary={"pictures": 2, "buckets": [{"size": [64, 64], "count": 2}], "tag_frequency": {"1_x": {"<i>": 2}}},
                files=[{"file": "mira.safetensors", "step": 20, "epoch": 2, "bytes": 2**20, "sha256": None}],
            ),
            tmp_path,
            tmp_path,
        )
    )
    assert page.sections == ["curves", "samples", "norms", "pictures", "data", "settings", "files"]
    assert len(page.ids) == len(set(page.ids)), "labels would point to the wrong place"
    assert len(page.fetched) == 3 and all(uri.startswith("data:image/webp;base64,") for uri in page.fetched)


def test_a_run_of_one_step_without_anything_else_has_a_page(tmp_path: Path) -> None:
    run = curves([{"step": 1, "epoch": 1, "loss": float("nan"), "mean_loss": None}])
    progress = {"step": 1, "steps": 9, "epoch": 1, "mean_loss": None, "seconds": None}
    text = render(report(curves=run, validation=[], progress=progress, state="running"), tmp_path, tmp_path)
    assert Page(text).sections == [] and "step 1 of 9; no pictures were held out" in text


def test_the_best_epoch_is_marked_and_all_is_said_in_words(tmp_path: Path) -> None:
    text = render(report(), tmp_path, tmp_path)
    assert "best, epoch 2" in text and "the best is epoch 2 (step 20)" in text
    assert "held out from 0.6 to 0.7, lowest 0.4 at step 20, highest 0.7 at step 40" in text
    named = render(report(verdict={"word": "overfitted", "sentence": "too long", "epoch": 3, "step": 30}), tmp_path, tmp_path)
    assert "best, epoch 3" in named and "too long" in named


def test_parts_of_one_course_share_a_curve() -> None:
    run = {"lr_text_encoder": [1.0, 2.0], "lr_unet": [1.0, 2.0], "lr_x": [0.0, 0.0]}
    assert rates_of(run) == {"UNet, text encoder": "lr_unet", "x": "lr_x"}


def test_what_leaves_the_plot_is_cut_off() -> None:
    drawn = draw(Chart("c", "y", [Line("a", [(1, -35.0), (2, 0.5)])], limits=(-1.0, 1.0)))
    labels = [float(text) for text in re.findall(r'text-anchor="end">([^<]+)<', drawn)]
    assert labels and min(labels) >= -1.2, "one wild value must not flatten the rest"
    assert "lowest -35" in drawn, "what is cut off is still told"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    ticks = even_ticks(low, low + width)
    slack = 1e-6 * (abs(low) + width)
    assert len(ticks) <= 8 and all(low - slack <= tick <= low + width + slack for tick in ticks)


@given(st.floats(1e-8, 1e3), st.floats(1.2, 1e9))
def test_logarithmic_ticks_are_few_and_inside(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert len(ticks) <= 13 and all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)


@given(st.lists(st.floats(allow_nan=True) | st.none(), min_size=1, max_size=30), st.booleans())
def test_all_that_is_drawn_lies_in_the_axis(values: list[float | None], log: bool) -> None:
    points = cleaned(list(enumerate(values)), log)
    found = [y for _, y in points if y is not None and 1e-200 < abs(y) < 1e200]
    if found:
        axis: Axis = y_axis([Line("a", [(x, y) for x, y in enumerate(found)])], [], Chart("c", "y", [], log=log))
        assert all(-1e-9 <= axis.place(y) <= 1 + 1e-9 for y in found)


@pytest.mark.parametrize(("x", "value"), [(0, 1.0), (4, 1.0), (6, None), (99, 3.0)])
def test_the_pointer_finds_the_nearest_number(x: float, value: float | None) -> None:
    assert nearest([(1, 1.0), (7, None), (20, 3.0)], x) == value


def test_thinning_keeps_both_ends() -> None:
    assert thinned(range(1000), 10)[0] == 0 and thinned(range(1000), 10)[-1] == 999 and len(thinned(range(1000), 10)) == 10
    assert spread(3, 12) == [0, 1, 2] and spread(100, 3) == [0, 50, 99]


def test_pictures_find_room_or_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.effect_noise((900, 900), 90).save(tmp_path / "noise.png")
    uris = sheet_uris([tmp_path / "noise.png"] * 12 + [tmp_path / "broken.png", tmp_path / "lost.png"])
    assert all(uris[:12]) and uris[12:] == ["", ""] and sum(map(len, uris)) <= SHEETS_ROOM
    assert thumb_uris([tmp_path / "lost.png"]) == [""]


@pytest.mark.parametrize(("seconds", "text"), [(None, "0 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")])
def test_times_are_told_in_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
