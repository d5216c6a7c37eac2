"""Twenty configurations of others become a dataset.toml that loads, and of each argument it is said what became of it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prep.options import read_settings
from tests.train.imports.configurations import CASES, Case
from train.cli import main
from train.config import TrainConfig
from train.imports.outcome import KINDS, LOST, UNKNOWN
from train.imports.read import read_source
from train.imports.shell import read_command
from train.imports.translate import Draft, translate


def drafted(case: Case, folder: Path) -> Draft:
    for name, text in case.files.items():
        (folder / name).write_text(text)
    sources = case.sources or (list(case.files)[-1],)
    return translate([reading for source in sources for reading in read_source(str(folder / source) if source in case.files else source)], folder)


def names_in(case: Case) -> Iterator[str]:
    """Yield what the account must name, found without the reader's own flattening of tables."""
    for name, text in [*case.files.items(), *(("typed", source) for source in case.sources if source not in case.files)]:
        if name.endswith(".json"):
            yield from json.loads(text)
        elif name.endswith(".toml"):
            yield from _keys(tomllib.loads(text))
        else:
            yield from (key for key, _ in read_command(text))


def _keys(table: dict[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _keys(value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                yield from _keys(one)
        else:
            yield key


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_nothing_is_dropped_silently(case: Case, tmp_path: Path) -> None:
    draft = drafted(case, tmp_path)
    named = {note.name for note in draft.notes} | {note.name.split()[-1] for note in draft.notes}
    for name in set(names_in(case)):
        assert name in named or (name == "network_args" and any(n.startswith("network_args ") for n in named)), name
    lost = {note.name for note in draft.notes if note.outcome.kind in (LOST, UNKNOWN)} - {"gradient_checkpointing"}
    assert lost == set(case.lost)
    assert all(note.outcome.kind in KINDS and (note.outcome.kind == "taken" or note.outcome.text) for note in draft.notes)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_is_written_loads_and_means_the_same(case: Case, tmp_path: Path) -> None:
    draft = drafted(case, tmp_path)
    for key, value in case.train.items():
        assert draft.train.get(key) == (pytest.approx(value) if isinstance(value, float) else value), key
    assert {key: draft.project.get(key) for key in case.project} == case.project
    if case.subsets is not None:
        assert draft.subsets == case.subsets
    sources = [str(tmp_path / source) if source in case.files else source for source in case.sources or (list(case.files)[-1],)]
    with pytest.raises(SystemExit) as end:
        main(["import", *sources, "--out", str(tmp_path / "new/dataset.toml")])
    assert end.value.code == 0
    loaded = TrainConfig.load(read_settings(tmp_path / "new"), {}).flat()
    here = {key for key, value in draft.train.items() if loaded[key] == value}
    moved = {"output_dir", "network_weights", "base_weights", "sample_prompts"}  # paths are written from the new file's folder
    assert here | moved >= set(draft.train)
    assert "SECRET" not in (tmp_path / "new/dataset.toml").read_text()


def test_there_are_twenty() -> None:
    assert len(CASES) == 20 and len({case.name for case in CASES}) == 20
