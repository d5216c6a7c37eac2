"""The report: the same facts as page and JSON, of finished and running runs, with nothing foreign in it and nothing that can fail it."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.options import UserError
from tests.train.test_validate import configured, wide_tree  # noqa: F401 (a fixture)
from train.cli import main
from train.config import OutputConfig
from train.curves import Chart, Line, draw
from train.report import read_log, write_report
from train.run import run

pytestmark = pytest.mark.usefixtures("one_thread")


class Page(HTMLParser):
    """What a browser would fetch or run, and the tags that are left open."""

    VOID = frozenset({"meta", "img", "input", "br", "link", "path", "line", "circle", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def logged(folder: Path, records: list[dict[str, Any]], rest: str = "") -> OutputConfig:
    folder.mkdir(parents=True, exist_ok=True)
    output = OutputConfig(output_dir=folder, output_name="mine")
    output.file(".jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + rest, encoding="utf-8")
    return output


def steps(count: int) -> list[dict[str, Any]]:
    return [
        {"step": n, "epoch": 1 + n // 5, "loss": 1 / n, "mean_loss": 1 / n, "grad_norm": None, "lr_unet": 1e-4, "seconds": 0.1}
        for n in range(1, count + 1)
    ]


def test_a_run_leaves_its_report(tiny_base: Path, wide_tree: Path) -> None:  # noqa: F811
    config = configured(tiny_base, wide_tree, sample_steps=1)
    run(config)
    text = config.output.file(".html").read_text(encoding="utf-8")
    facts = json.loads(config.output.file(".json").read_text(encoding="utf-8"))
    page = Page(text)
    assert not page.open and page.fetched and all(where.startswith(("data:", "#")) for where in page.fetched) and "script" not in page.tags
    assert facts["verdict"]["sentence"].split(":")[0] in text.replace("&#x27;", "'") and facts["state"] == "finished"
    assert [entry["epoch"] for entry in facts["validation"]] == [1, 2, 3, 4]
    assert facts["pictures"] and facts["norms"]["blocks"] and facts["changed"] and len(facts["files"]) >= 1
    assert "learning_rate" in facts["settings"] and str(tiny_base) not in text
    assert text.count("<figure") >= 4 and len(text) < 5_000_000


def test_a_running_run_has_a_page_and_a_cut_line_does_not_matter(tmp_path: Path) -> None:
    output = logged(tmp_path, steps(30), '{"step": 31, "lo')
    page = write_report(output, {"steps": 90})
    facts = json.loads(output.file(".json").read_text())
    assert facts["state"] == "running" and facts["progress"]["step"] == 30 and "30 of 90" in page.read_text(encoding="utf-8")
    assert not Page(page.read_text(encoding="utf-8")).open


def test_names_and_captions_are_text_and_nothing_else(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    place = tmp_path / "tree" / "img" / "1_x"
    place.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(place / "a.png")
    output = OutputConfig(output_dir=tmp_path / "lora", output_name="mine")
    logged(output.output_dir, steps(3))
    row = {"path": place / "a.png", "improvement": 0.5, "keyword": 0.1, "verdict": "memorised", "cut_tags": [evil]}
    summary = {"tag_frequency": {"1_x": {evil: 3}}, "dataset_dirs": {evil: {"n_repeats": 1, "img_count": 1}}}
    verdict = {"word": "right", "sentence": evil, "epoch": 1, "step": 1}
    facts = {"pictures": [row], "summary": summary, "verdict": verdict, "tree": tmp_path / "tree", "settings": {"sample_prompts": evil}}
    text = write_report(output, facts).read_text(encoding="utf-8")
    assert "script" not in Page(text).tags and "&lt;script&gt;" in text


def test_what_is_no_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no log"):
        read_log(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="no step yet"):
        read_log(logged(tmp_path, []).file(".jsonl"))


def test_the_command_draws_it_anew(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text('[project]\nname = "mine"\n')
    none = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert none.exit_code == 1 and "there is no log" in none.output
    logged(tmp_path / "lora", steps(3))
    found = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert found.exit_code == 0 and (tmp_path / "lora" / "mine.html").exists()


def test_a_long_log_makes_a_page_of_bounded_size(tmp_path: Path) -> None:
    output = logged(tmp_path, steps(20_000))
    assert write_report(output, {}).stat().st_size < 1_000_000
    curve = json.loads(output.file(".json").read_text())["curves"]
    assert max(curve["loss"]) == 1.0, "the extremes stay"


numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(-1, 1))


@settings(max_examples=60)
@given(st.lists(st.lists(st.tuples(st.floats(0, 1e6), numbers), max_size=12), max_size=3), st.booleans())
def test_any_numbers_can_be_drawn(lines: list[list[tuple[float, Any]]], log: bool) -> None:
    made = [Line(f"line {n}", sorted(points, key=lambda point: point[0]), n) for n, points in enumerate(lines)]
    page = Page(draw(Chart("<title>", "unit", made, log=log)))
    assert not page.open
    drawable = [y for points in lines for _, y in points if y is not None and math.isfinite(y) and (y > 0 or not log)]
    assert bool(drawable) == ("figure" in page.tags)
