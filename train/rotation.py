"""Few pictures: the best epoch is found by runs that each leave out another part, then a last run trains all pictures that long."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.fingerprint import fingerprint_of
from train.state import Job, read_state
from train.validate import Judgement, score

if TYPE_CHECKING:
    from prep.tree import Folder
    from train.config import TrainConfig
    from train.families.sd import Model
    from train.runtime import Runtime, StopSignals


@dataclasses.dataclass(frozen=True)
class Rotation:
    """The mean judgements of all parts, at shares of a run (0..1), and the share that was best."""

    course: tuple[tuple[float, Judgement], ...]

    @property
    def judgements(self) -> list[Judgement]:
        return [judgement for _, judgement in self.course]

    @property
    def best(self) -> tuple[float, Judgement]:
        return min(self.course, key=lambda entry: score(entry[1]))


def rotate(config: TrainConfig, base: tuple[Runtime, Model, list[Folder]], signals: StopSignals) -> Rotation:
    """Run once for each part, without it; each run goes on where it was stopped, and one that is done is read from its state."""
    from train.run import prepare, start, train_fitting

    runtime, model, folders = base
    runs: list[list[tuple[float, Judgement]]] = []
    for fold in range(config.validation.validation_folds):
        own = part_of(config, fold)
        fingerprint = fingerprint_of(own, folders, model.digest, runtime.processes.count)
        job = prepare(own, runtime, model, fingerprint, fold)
        if not job.data.held.training:  # more parts than groups of pictures
            continue
        state = start(job, read_state(own.output.file("-state.pt"), fingerprint))
        print(f"part {fold + 1} of {config.validation.validation_folds}: {len(job.data.held.training)} pictures are left out")
        try:
            job, state = train_fitting(job, state, signals, job.steps)
        finally:
            state.network.remove()
        runs.append([(judgement.step / job.steps, judgement) for judgement in state.judged()])
    if not runs:
        raise UserError("validation_folds needs two pictures that are no copies of one another; set it to 0")
    return Rotation(averaged(runs))


def part_of(config: TrainConfig, fold: int) -> TrainConfig:
    """Return the settings of the run that leaves out a part: the same training, files of its own, no LoRA of its own."""
    output = dataclasses.replace(
        config.output, output_dir=config.output.output_dir / f"{config.output.output_name}-parts", output_name=f"part-{fold + 1}",
        save_every_n_epochs=0, save_every_n_steps=0, sample_every_n_epochs=0, sample_every_n_steps=0, log_with="",
    )  # fmt: skip
    return dataclasses.replace(config, output=output, validation=dataclasses.replace(config.validation, keep_best=False, patience=0))


def averaged(runs: Sequence[Sequence[tuple[float, Judgement]]]) -> tuple[tuple[float, Judgement], ...]:
    """Average the judgements of equal number over all runs; the band is that of the runs' mean, as each judges other pictures."""
    course = []
    for found in zip(*runs, strict=False):
        judgements = [judgement for _, judgement in found]
        means: dict[str, Any] = {f.name: sum(getattr(j, f.name) for j in judgements) / len(judgements) for f in dataclasses.fields(Judgement)}
        means |= {"step": judgements[0].step, "epoch": judgements[0].epoch, "band": means["band"] / math.sqrt(len(judgements))}
        course.append((sum(share for share, _ in found) / len(found), Judgement(**means)))
    return tuple(course)


def last_step(job: Job, rotation: Rotation) -> int:
    """Return the step of the run on all pictures that is as far as the best one: the nearest end of an epoch."""
    an_epoch = -(-job.data.batches_per_epoch // job.data.batches_a_step)
    return min(job.steps, max(1, round(rotation.best[0] * job.steps / an_epoch)) * an_epoch)


def forget(config: TrainConfig) -> None:
    """Delete the states of the parts, if there were any, once the last run is saved."""
    for path in (config.output.output_dir / f"{config.output.output_name}-parts").glob("*-state.pt"):
        path.unlink(missing_ok=True)
