"""The runs of a sweep: each setting's, one by one or several in one forward pass, and how far it came."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.config import TrainConfig
from train.fingerprint import fingerprint_of
from train.result import BEST, save_checked
from train.run import prepare, start, train_fitting
from train.runtime import NotFiniteError, StopSignals
from train.stack import Run, train_stacked
from train.state import read_state
from train.validate import Judgement
from train.verdict import best_of

if TYPE_CHECKING:
    from prep.tree import Folder
    from train.families.sd import Model
    from train.runtime import Runtime

FOLDS = 5  # of a set too small for validation_split a sweep holds out one part in so many
UNJUDGED = Judgement(0, 0, math.inf, *[math.nan] * 4)


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
    """How far a setting came and what it was worth; of one that broke the judgements are those from before, or not a number."""

    setting: Setting
    steps: int
    whole: int  # steps of a whole run
    best: Judgement
    last: Judgement
    path: Path  # of the best
    broken: str = ""  # what of it became infinite or not a number

    @property
    def score(self) -> float:
        """What the best setting has least of: the held-out loss; at the first rungs no keyword is bound yet that could be weighed."""
        return math.inf if self.broken else self.best.loss

    @property
    def words(self) -> str:
        return ("broke, " if self.broken else "") + f"loss {self.best.loss:.3f}, {self.steps} steps"

    def record(self) -> dict[str, Any]:
        """Return it in plain types; what is no number is None."""
        found = {
            "number": self.setting.number,
            "values": dict(self.setting.values),
            "steps": self.steps,
            "of": self.whole,
            "best": dataclasses.asdict(self.best),
            "last": dataclasses.asdict(self.last),
            "score": self.score,
            "file": self.path.name if self.path.exists() else "",
            "broken": self.broken,
        }
        return {key: finite(value) for key, value in found.items()}


def finite(value: Any) -> Any:
    """Return a value, or None for what JSON has no number for; in a mapping one by one."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Trainer:
    """What all settings of a sweep share."""

    base: tuple[Runtime, Model, list[Folder]]
    signals: StopSignals
    at_once: int

    def train(self, settings: Sequence[Setting], share: float) -> list[Entry]:
        """Take settings up to a share of their steps, going on from what is saved of them, those that are alike together."""
        if self.at_once == 1:
            return [entry for setting in settings for entry in self._together([setting], share)]
        return self._together(settings, share)

    def _together(self, settings: Sequence[Setting], share: float) -> list[Entry]:
        opened = {setting.number: self._open(setting) for setting in settings}
        groups: dict[object, list[Setting]] = {}
        for setting in settings:
            groups.setdefault(opened[setting.number].alike, []).append(setting)
        found = []
        try:
            for group in groups.values():
                for place in range(0, len(group), self.at_once):
                    part = group[place : place + self.at_once]
                    began = time.monotonic()
                    self._train([opened[setting.number] for setting in part], share)
                    seconds = (time.monotonic() - began) / len(part)
                    found += [closed(setting, opened[setting.number], seconds) for setting in part]
        finally:
            for run in opened.values():
                run.state.network.remove()
        return found

    def _train(self, runs: Sequence[Run], share: float) -> None:
        until = math.ceil(share * runs[0].job.steps)
        with redirect_stdout(StringIO()):  # what a run says of itself, said eight times, hides what the sweep says
            if len(runs) > 1:
                train_stacked(runs, self.signals, until)
                return
            (run,) = runs
            run.state.network.put_back()
            try:
                run.job, run.state = train_fitting(run.job, run.state, self.signals, until)
            except UserError as error:
                if not isinstance(error.__cause__, NotFiniteError):
                    raise
                run.broken = str(error.__cause__)
            run.state.network.remove()

    def _open(self, setting: Setting) -> Run:
        runtime, model, folders = self.base
        config, output = setting.config, setting.config.output
        fingerprint = {**fingerprint_of(config, folders, model.digest), "sweep": "1"}
        with redirect_stdout(StringIO()):
            job = prepare(config, runtime, model, fingerprint)
            if not job.data.held.training:
                config = dataclasses.replace(config, validation=dataclasses.replace(config.validation, validation_folds=FOLDS))
                job = prepare(config, runtime, model, fingerprint, 0)
            state = start(job, read_state(output.file("-state.pt"), fingerprint))
        state.network.remove()
        return Run(job, state)


def closed(setting: Setting, run: Run, seconds: float) -> Entry:
    """Save what a run came to, and say it."""
    output, judgements = setting.config.output, run.state.judged() or [UNJUDGED]
    path, best = output.file(".safetensors"), best_of(judgements)
    if not run.broken:
        save_checked(path, run.job, run.state)
    if (best.step < run.state.step or run.broken) and output.file(BEST).exists():
        path = output.file(BEST)
    entry = Entry(setting, run.state.step, run.job.steps, best, judgements[-1], path, run.broken)
    values = ", ".join(f"{key} {value}" for key, value in setting.values.items())
    told = f"{entry.score:.4f} of the base's loss, {entry.last.learned:.1%} learned, {seconds:.0f} s"
    print(f"  {values}: " + (f"broke at step {run.state.step + 1}: {run.broken}" if run.broken else told))
    return entry
