"""What stays and what changes while a run trains; what changes is saved, so that a stopped run equals one that never stopped."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.atomic import atomic_write
from train.config import TrainConfig
from train.ema import Ema
from train.noise import NoiseSchedule
from train.optimizers import resulting_weights
from train.runtime import Runtime
from train.validate import Judgement

if TYPE_CHECKING:
    import torch
    from torch import nn

    from train.adapters.network import Network
    from train.dataset import TrainingSet
    from train.families.sd import Model
    from train.ladder import Ladder
    from train.regions import Regions
    from train.spill import SpillWatch

COUNTS = ("step", "epoch", "batch", "losses", "judgements", "started_at", "due")
RECENT = 100  # losses that the shown mean runs over


@dataclass(frozen=True)
class Job:
    """All that stays as it is while a run trains; `steps` is how many it takes in all."""

    config: TrainConfig
    runtime: Runtime
    model: Model
    data: TrainingSet
    schedule: NoiseSchedule
    fingerprint: Mapping[str, Any]
    steps: int
    ladder: Ladder | None = None  # of `fit`: how the run is held
    spill: SpillWatch | None = None

    def as_held(self) -> Job:
        """Return the job with the settings of the rung that it is on."""
        return dataclasses.replace(self, config=self.ladder.config) if self.ladder else self


@dataclass
class TrainState:
    """What a step reads and changes; `epoch` and `batch` say which batch comes next."""

    network: Network
    optimizer: torch.optim.Optimizer
    generator: torch.Generator  # each batch sets it to its own seed, so it need not be saved
    scaler: torch.amp.GradScaler | None = None
    step: int = 0
    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=list)
    judgements: list[dict[str, float]] = field(default_factory=list)  # of train.validate.Judgement, in order
    started_at: float = field(default_factory=time.time)
    ema: Ema | None = None
    regions: Regions | None = None  # while blocks are compiled
    due: dict[str, Any] | None = None  # the last step's line of the log until it is written, then {} until its files and pictures are there too

    @property
    def told(self) -> int:
        """The last step whose line the log has."""
        return self.step - bool(self.due)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained, always in the same order."""
        return list(self.network.parameters())

    def result(self) -> AbstractContextManager[None]:
        """Let the network be what is saved and shown: its running mean, if there is one, or the optimizer's own."""
        return self.ema.in_place_of(self.parameters) if self.ema else resulting_weights(self.optimizer)

    def judged(self) -> list[Judgement]:
        """List the judgements so far."""
        return [Judgement(**found) for found in self.judgements]  # type: ignore[arg-type]

    @property
    def mean_loss(self) -> float:
        return sum(self.losses) / max(1, len(self.losses))

    def advance(self, batches: int, batches_per_epoch: int, loss: float) -> None:
        """Count one step that took `batches` batches."""
        self.step += 1
        self.losses = [*self.losses[1 - RECENT :], loss]
        self.batch += batches
        if self.ema:
            self.ema.update(self.parameters, self.step)
        if self.batch >= batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0

    def save(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        """Write the state whole or not at all."""
        import torch

        saved = {
            "fingerprint": dict(fingerprint),
            "counts": {name: getattr(self, name) for name in COUNTS},
            "network": self.network.state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "ema": self.ema.means if self.ema else [],
        }
        try:
            atomic_write(path, lambda file: torch.save(saved, file))  # straight to the disk: a full fine-tune's is many gigabytes
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); make room and run again, training goes on from the last saved state") from error

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over what `save` wrote."""
        self.network.load(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scaler and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        if self.ema:
            self.ema.means = [found.to(mean) for found, mean in zip(saved["ema"], self.ema.means, strict=True)]
        for name, value in saved["counts"].items():
            setattr(self, name, value)


def read_state(path: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a saved state, None if there is none; raises UserError if it is broken or of another run."""
    import torch

    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        before = saved["fingerprint"]
    except Exception as error:  # torch.load fails in many ways on a broken file, and all mean the same here
        raise UserError(f"{path} is not a state of a run ({type(error).__name__}); give --restart to begin anew") from error
    changed = [key for key in {**before, **fingerprint} if before.get(key) != fingerprint.get(key)]
    if changed:
        words = ", ".join(f"{key} was {before.get(key)}, is {fingerprint.get(key)}" for key in changed[:3])
        raise UserError(f"{path} is the state of a run that differs ({words}); set that back to go on, or give --restart to begin anew")
    return saved
