"""Shards: every picture belongs to exactly one, on every machine the same, and together they do what one run does."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.shards import parse, shard_of, share
from prep.cli import main
from prep.item import Item
from prep.options import UserError


@given(st.sets(st.text(min_size=1), max_size=60), st.integers(1, 9))
def test_shards_share_out_all_pictures_once(keys: set[str], count: int) -> None:
    items = [Item(key, Path("x")) for key in sorted(keys)]
    parts = [list(share(items, f"{index + 1}/{count}")) for index in range(count)]
    assert sorted(item.key for part in parts for item in part) == sorted(keys)
    assert list(share(items, "")) == items


def test_shards_are_about_equal_and_stages_stay_together() -> None:
    sizes = [sum(shard_of(f"picture {n}", 4) == index for n in range(4_000)) for index in range(4)]
    assert min(sizes) > 900
    stages = [Item(f"a-{stage}", Path("x"), parent="a") for stage in ("half", "head")]
    assert [len(list(share([Item("a", Path("x")), *stages], f"{index}/2"))) for index in (1, 2)] in ([3, 0], [0, 3])


def test_a_slurm_array_may_start_anywhere() -> None:
    slurm = {"SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert parse("auto", slurm) == (2, 4) and parse("3/16") == (2, 16)
    with pytest.raises(UserError, match="no task of a Slurm array"):
        parse("auto", {})


@pytest.mark.parametrize("wrong", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2"])
def test_a_wrong_shard_is_a_sentence(wrong: str) -> None:
    with pytest.raises(UserError, match="is not I/K"):
        parse(wrong)


def test_shards_together_do_what_one_run_does(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(12):
        Image.new("RGB", (210, 205 + number), "red").save(raw / f"{number}.png")

    def clean(out: str, *options: str) -> None:
        result = CliRunner().invoke(main, ["clean", "--no-check", str(raw), "--out", str(tmp_path / out), *options])
        assert result.exit_code == 0, result.output

    def pictures(out: str) -> dict[str, bytes]:
        files = [path for path in (tmp_path / out).rglob("*") if path.suffix in (".png", ".json") and path.name != "report.json"]
        return {path.relative_to(tmp_path / out).as_posix(): path.read_bytes() for path in files}

    clean("whole")
    seen = 0
    for index in (2, 1, 3):
        clean("shards", "--shard", f"{index}/3")
        assert seen < len(pictures("shards")), "each adds its own"
        seen = len(pictures("shards"))
    assert pictures("shards") == pictures("whole") and not (tmp_path / "shards" / ".atelier" / "report.json").exists()
