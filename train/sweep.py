"""Many settings on one loaded base: a grid, or successive halving, judged as epochs are; killed at any moment it goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError, atomic_write
from train.config import FREE, SECTIONS, TrainConfig, known_keys
from train.processes import Processes
from train.run import checked_tree, open_base
from train.runtime import StopSignals
from train.shortage import ShortError, placed
from train.sweep_runs import Entry, Setting, Trainer

if TYPE_CHECKING:
    from train.families.sd import Model
    from train.runtime import Runtime

# What no two settings of a sweep may differ in: the base that all share, and what decides by which pictures and timesteps they are judged.
SHARED = frozenset(
    {
        *(field.name for section in ("model", "validation") for field in dataclasses.fields(SECTIONS[section])),
        *("base_weights", "base_weights_multiplier", "zero_terminal_snr", "mixed_precision"),
        *("seed", "min_timestep", "max_timestep", "normalize_masked_area_loss"),
    }
)
PROMPTS, SEEDS = 4, 2  # of the picture
# Shares of the steps after which the better half goes on. Eight settings then cost as much as four whole runs.
RUNGS = {"halving": (0.25, 0.5, 1.0), "grid": (1.0,)}


def points(axes: Sequence[str]) -> list[dict[str, Any]]:
    """Read axes such as "learning_rate=1e-4,3e-4" into all their combinations; raises UserError with all faults."""
    found: dict[str, list[Any]] = {}
    faults = []
    for axis in axes:
        key, equals, values = axis.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not values.strip():
            faults.append(f"{axis!r} is no axis; write KEY=VALUE,VALUE such as learning_rate=1e-4,3e-4")
        elif key not in known_keys():
            faults.append(f"{key} is no setting; `train run --help` lists them")
        elif key in SHARED or key in FREE:
            faults.append(f"{key} cannot be swept: all settings share one base and are judged alike, or it does not change the result")
        else:
            found[key] = [plain(value.strip()) for value in values.split(",")]
    if faults or not found:
        raise UserError("; ".join(faults) or "nothing to sweep; give --vary KEY=VALUE,VALUE")
    return [dict(zip(found, combination, strict=True)) for combination in itertools.product(*found.values())]


def plain(text: str) -> Any:
    """Read a value as TOML writes it, or as a bare word."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def settings_of_sweep(settings: Mapping[str, Any], given: Mapping[str, Any], root: Path, axes: Sequence[str]) -> list[Setting]:
    """Make the settings of a sweep; raises UserError if one of them cannot be."""
    made = []
    for number, values in enumerate(points(axes), 1):
        table = {**settings, "train": {**settings.get("train", {}), **values}}
        try:
            config = TrainConfig.load(table, given).at(root)
        except UserError as error:
            raise UserError(f"{', '.join(f'{key} = {value}' for key, value in values.items())}: {error}") from error
        output = dataclasses.replace(
            config.output, output_dir=folder_of(config), output_name=f"{config.output.output_name}-{number:02d}", sample_every_n_epochs=0,
            sample_every_n_steps=0, log_with="", save_every_n_epochs=0, save_every_n_steps=0,
        )  # fmt: skip
        made.append(Setting(number, values, dataclasses.replace(config, output=output)))
    return made


def folder_of(config: TrainConfig) -> Path:
    """Return where a sweep of a project lies."""
    return config.output.output_dir / f"{config.output.output_name}-sweep"


def sweep(settings: Sequence[Setting], strategy: str = "halving", at_once: int = 0) -> list[Entry]:
    """Train the settings, by halving only the better ones to the end; returns them from best to worst.

    Settings are compared by the held-out loss of their best epochs, at the rung that they came to: who came further is better.
    Up to `at_once` that see the same batches are trained in one forward pass; 0 means all of them on a GPU, and one on a processor.
    """
    config = settings[0].config
    with StopSignals() as signals:
        folders = checked_tree(config.data)
        runtime, model = open_base(config, Processes())
        trainer = Trainer((runtime, model, folders), signals, at_once or (len(settings) if runtime.device.type == "cuda" else 1))
        left, done = list(settings), list[Entry]()
        for number, share in enumerate(RUNGS[strategy]):
            print(f"{len(left)} settings up to {share:.0%} of their steps")
            found = sorted(trainer.train(left, share), key=lambda entry: entry.score)
            kept = math.ceil(len(found) / 2) if number + 1 < len(RUNGS[strategy]) else len(found)
            whole = [entry for entry in found[:kept] if not entry.broken]
            done = [*found[len(whole) :], *done] if number + 1 < len(RUNGS[strategy]) else [*found, *done]
            left = [entry.setting for entry in whole]
        if not left:
            raise UserError(f"every setting broke; the best of them: {done[0].broken}; sweep lower learning rates")
        write_table(done, config.output.output_dir / "sweep.json")
        try:
            picture(done, model, runtime, config.output.output_dir / "sweep.png")
        except ShortError as error:
            print(f"no picture of the settings, since it was {error}")
    return done


def picture(entries: Sequence[Entry], model: Model, runtime: Runtime, path: Path) -> None:
    """Draw the same prompts and seeds with the base and with each setting's LoRA, the best first, and a page of it; nothing if sample_steps is 0."""
    from train.prompts import sample_prompts
    from train.sample import Generator
    from train.tools.drawing import Weighted
    from train.tools.grid import draw_sheet, with_seeds

    config = entries[0].setting.config
    side = config.data.resolution or model.resolution
    prompts = [dataclasses.replace(p, width=p.width or side, height=p.height or side) for p in sample_prompts(config)[:PROMPTS]]
    if not prompts or config.network.full:
        return
    with placed("while the base was moved to the device", "`train grid` draws the files with another one"):
        model.to(runtime.device)
    shown = [(f"{entry.setting.label}\n{entry.words}", [Weighted(entry.path)]) for entry in entries if entry.path.exists()]
    with runtime.autocast():
        generator = Generator(model, clip_skip=config.model.clip_skip)
        sheet = draw_sheet(generator, [("base", []), *shown], with_seeds(prompts, SEEDS, config.output.seed))
    _, page = sheet.save(path, path.parent.name)
    print(f"{path} and {page.name} show all settings")


def write_table(entries: Sequence[Entry], path: Path) -> None:
    """Write the sweep's table as JSON, the best setting first."""
    atomic_write(path, json.dumps([entry.record() for entry in entries], indent=1) + "\n")


def recommended(entry: Entry) -> str:
    """Return the lines for [train] that the best setting comes to."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.setting.values.items())
