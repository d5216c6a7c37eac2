"""Chains: whole ways from raw pictures to a LoRA file, as plain calls of the commands' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prep.project import Place
from prep.run import Run

if TYPE_CHECKING:
    from train.run import RunResult


def raw_to_lora(root: Path) -> RunResult:
    """Run `prep run` and then `train run` on the project in `root`; both go on where they were stopped."""
    from train.config import TrainConfig
    from train.run import run

    place = Place.open(root)
    place.need_project("run")
    Run.configured(place).main(place)
    return run(TrainConfig.load(place.settings, {}).at(root))
