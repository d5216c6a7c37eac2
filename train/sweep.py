"""Many settings on one loaded base: a grid, or successive halving, judged by the held-out loss; killed at any moment it goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError, atomic_write
from train.config import FREE, SECTIONS, TrainConfig, known_keys
from train.fingerprint import fingerprint_of
from train.processes import Processes
from train.result import BEST, save_checked
from train.run import checked_tree, open_base, prepare, start, train
from train.runtime import StopSignals
from train.state import read_state
from train.validate import Judgement, score
from train.verdict import best_of

if TYPE_CHECKING:
    from prep.tree import Folder
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
FOLDS = 5  # of a set too small for validation_split a sweep holds out one part in so many
PROMPTS, SEEDS = 4, 2  # of the picture
# Shares of the steps after which the better half goes on. Eight settings then cost as much as four whole runs.
RUNGS = {"halving": (0.25, 0.5, 1.0), "grid": (1.0,)}


@dataclass(frozen=True)
class Setting:
    """One point of a sweep: what differs, and the whole settings with it."""

    number: int
    values: Mapping[str, Any]
    config: TrainConfig

    @property
    def label(self) -> str:
        return "\n".join(f"{key} = {json.dumps(value)}" for key, value in self.values.items())


@dataclass(frozen=True)
class Entry:
    """How far a setting came and what it was worth."""

    setting: Setting
    steps: int
    whole: int  # steps of a whole run
    best: Judgement
    last: Judgement
    path: Path  # of the best

    def record(self) -> dict[str, Any]:
        """Return it in plain types."""
        judged = {"best": dataclasses.asdict(self.best), "last": dataclasses.asdict(self.last), "score": score(self.best)}
        return {
            "number": self.setting.number,
            "values": dict(self.setting.values),
            "steps": self.steps,
            "of": self.whole,
            **judged,
            "file": self.path.name,
        }


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


def sweep(settings: Sequence[Setting], strategy: str = "halving") -> list[Entry]:
    """Train the settings, by halving only the better ones to the end; returns them from best to worst.

    Settings are compared by their best held-out loss as a share of the base's, at the rung that they came to: who came further is better.
    """
    config = settings[0].config
    with StopSignals() as signals:
        folders = checked_tree(config.data)
        runtime, model = open_base(config, Processes())
        left, done = list(settings), list[Entry]()
        for number, share in enumerate(RUNGS[strategy]):
            print(f"{len(left)} settings up to {share:.0%} of their steps")
            found = sorted((trained(setting, share, (runtime, model, folders), signals) for setting in left), key=lambda entry: score(entry.best))
            kept = math.ceil(len(found) / 2) if number + 1 < len(RUNGS[strategy]) else len(found)
            done = [*found[kept:], *done] if number + 1 < len(RUNGS[strategy]) else [*found, *done]
            left = [entry.setting for entry in found[:kept]]
        picture(done, model, runtime, config.output.output_dir / "sweep.png")
    write_table(done, config.output.output_dir / "sweep.json")
    return done


def trained(setting: Setting, share: float, base: tuple[Runtime, Model, list[Folder]], signals: StopSignals) -> Entry:
    """Take a setting up to a share of its steps, going on from what is saved of it."""
    runtime, model, folders = base
    config, output = setting.config, setting.config.output
    began = time.monotonic()
    fingerprint = {**fingerprint_of(config, folders, (model.unet, model.vae, *model.text_encoders)), "sweep": "1"}
    with redirect_stdout(StringIO()):  # what a run says of itself, said eight times, hides what the sweep says
        job = prepare(config, runtime, model, fingerprint)
        if not job.data.held.training:
            config = dataclasses.replace(config, validation=dataclasses.replace(config.validation, validation_folds=FOLDS))
            job = prepare(config, runtime, model, fingerprint, 0)
        state = start(job, read_state(output.file("-state.pt"), fingerprint))
        try:
            train(job, state, signals, math.ceil(share * job.steps))
            path = output.file(".safetensors")
            save_checked(path, job, state)
        finally:
            state.network.remove()
    judgements = state.judged()
    best = best_of(judgements)
    if best.step < state.step and output.file(BEST).exists():
        path = output.file(BEST)
    entry = Entry(setting, state.step, job.steps, best, judgements[-1], path)
    told = ", ".join(f"{key} {value}" for key, value in setting.values.items())
    print(f"  {told}: {score(entry.best):.4f} of the base's loss, {entry.last.learned:.1%} learned, {time.monotonic() - began:.0f} s")
    return entry


def picture(entries: Sequence[Entry], model: Model, runtime: Runtime, path: Path) -> None:
    """Draw the same prompts and seeds with the base and with each setting's LoRA, the best first; nothing if sample_steps is 0."""
    from prep.images import save as save_picture
    from train.adapters.build import all_targets
    from train.adapters.network import Network
    from train.export import read_lora
    from train.prompts import sample_prompts
    from train.sample import Generator, grid

    config = entries[0].setting.config
    prompts = sample_prompts(config)[:PROMPTS]
    if not prompts or config.network.full:
        return
    model.to(runtime.device)
    generator, side = Generator(model, clip_skip=config.model.clip_skip), config.data.resolution or model.resolution

    def row() -> list[Any]:
        with runtime.autocast():
            return list(
                generator.draw(
                    [prompt.prompt for prompt in prompts for _ in range(SEEDS)], [config.output.seed + n for _ in prompts for n in range(SEEDS)],
                    steps=config.output.sample_steps, guidance_scale=config.output.guidance_scale, size=side,
                )
            )  # fmt: skip

    rows = [row()]
    for entry in entries:
        network = Network.from_state(all_targets(model), read_lora(entry.path)[0]).to(runtime.device)
        rows.append(row())
        network.remove()
    labels = ["base", *(f"{entry.setting.label}\nloss {entry.best.loss:.3f}, {entry.steps} steps" for entry in entries)]
    save_picture(grid(rows, labels, [prompt.prompt for prompt in prompts for _ in range(SEEDS)]), path)
    print(f"{path} shows all settings")


def write_table(entries: Sequence[Entry], path: Path) -> None:
    """Write the sweep's table as JSON, the best setting first."""
    atomic_write(path, json.dumps([entry.record() for entry in entries], indent=1) + "\n")


def recommended(entry: Entry) -> str:
    """Return the lines for [train] that the best setting comes to."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.setting.values.items())
