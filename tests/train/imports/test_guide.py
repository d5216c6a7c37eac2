"""docs/moving-in.md says what the rules do."""

from __future__ import annotations

from pathlib import Path

from train.config import known_keys
from train.imports.guide import LOST, NEEDLESS, TAKEN, lines, rows, tables
from train.imports.network_rules import NETWORK_ARGS
from train.imports.translate import RULES

DOCS = Path(__file__).parents[3] / "docs"


def test_the_tables_in_the_docs_are_those_of_the_rules() -> None:
    assert tables() in (DOCS / "moving-in.md").read_text(encoding="utf-8"), "write train.imports.guide.tables() into docs/moving-in.md again"


def test_every_rule_is_a_row_that_says_what_or_why() -> None:
    found = {row.name: row for row in rows()}
    assert set(RULES) - set(found) == {"steps_win", "script"} and {f"network_args {key}" for key in NETWORK_ARGS} <= set(found)
    for row in found.values():
        assert row.kind in (TAKEN, LOST, NEEDLESS)
        assert bool(row.text) != bool(row.settings), row
        assert all(key in known_keys() or key.startswith("[project] ") for key in row.settings)
    assert len(list(lines())) == len(found)
    assert found["unet_lr"].settings == ("unet_lr",) and found["lr_warmup_steps"].settings == ("lr_warmup_ratio",)
    assert found["full_fp16"].kind == LOST and found["xformers"].kind == NEEDLESS


def test_other_pages_lead_there() -> None:
    assert "moving-in.md" in (DOCS / "train.md").read_text(encoding="utf-8") and "docs/moving-in.md" in (DOCS.parent / "README.md").read_text(
        encoding="utf-8"
    )
