"""Milestones: what is due after a step besides the step itself: judging it, keeping the LoRA, drawing samples."""

from __future__ import annotations

import re
from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING, Any

from train.memory import leave_device
from train.relief import advice
from train.result import BEST, draw_samples, save_checked
from train.shortage import placed
from train.validate import Judgement, Panel
from train.verdict import best_of

if TYPE_CHECKING:
    from pathlib import Path

    from train.config import OutputConfig
    from train.control import Control
    from train.log import StepLog
    from train.state import Job, TrainState

# Names of the kept files, as sd-scripts writes them.
EPOCH, STEP = "-{:06d}.safetensors", "-step{:08d}.safetensors"


def settle(panel: Panel | None, job: Job, state: TrainState, until: int, log: StepLog | None, control: Control) -> None:
    """Judge the step just taken if that is due, write its line of the log, and do what else is due.

    Raises ShortError for want of memory; called again it does what was not done yet. `log` is None for all processes but the first.
    """
    if state.due:
        with placed(f"while step {state.step} was judged", advice(job.config)):
            judgement = judged(panel, job, state, state.step == until)
        if log:
            log.write({**state.due, **judgement}, state.mean_loss)
        state.due = {}
    if log:
        words = advice(job.config, "set smaller sizes in sample_prompts, or sample_every_n_epochs and sample_every_n_steps to 0, and run again")
        with placed(f"while samples were drawn after step {state.step}", words):
            reach(job, state, control.asked())
    state.due = None


def judged(panel: Panel | None, job: Job, state: TrainState, pausing: bool) -> dict[str, Any]:
    """Judge the step just taken if that is due, or the run pauses, and keep the LoRA if it is the best so far; returns what the log tells of it.

    The first process judges, and tells the others, who must come to the same end.
    """
    if panel is None or not (pausing or panel.due(state)):
        return {}
    processes = job.runtime.processes
    own = astuple(panel.judge(state)) if processes.first else [0] * len(fields(Judgement))
    judgement = Judgement(*(int(n) if f.type == "int" else n for n, f in zip(processes.total(*own), fields(Judgement), strict=True)))  # type: ignore[arg-type]
    best = best_of([*state.judged(), judgement]).step == judgement.step
    if best and processes.first and job.config.validation.keep_best and state.step < job.steps:
        save_checked(job.config.output.file(BEST), job, state)
    state.judgements.append(asdict(judgement))
    print(
        f"epoch {judgement.epoch}: held-out loss {judgement.loss:.1%} of the base's, learned {judgement.learned:.1%}, "
        f"needs the keyword {judgement.needs_keyword:.1%}, bleed {judgement.bleed:.1%}" + (", the best so far" if best else "")
    )
    return {"validation": judgement.record(best)}


def reach(job: Job, state: TrainState, asked: str) -> None:
    """Do what is due now; nothing after the last step, which ends in the result itself."""
    output = job.config.output
    if state.step >= job.steps:
        return
    epoch_ended = state.batch == 0
    if epoch_ended and _due(output.save_every_n_epochs, state.epoch):
        print(save_checked(output.file(EPOCH.format(state.epoch)), job, state))
        keep_last(output, r"-(\d{6})\.safetensors", output.save_last_n)
    if asked == "save" or _due(output.save_every_n_steps, state.step):
        print(save_checked(output.file(STEP.format(state.step)), job, state))
        keep_last(output, r"-step(\d{8})\.safetensors", output.save_last_n)
    if (epoch_ended and _due(output.sample_every_n_epochs, state.epoch)) or _due(output.sample_every_n_steps, state.step):
        draw_samples(job, state, output.file(f"-samples-{state.step:08d}.png"))
        leave_device(job.model, job.data.text is None)


def _due(every: int, count: int) -> bool:
    return every > 0 and count % every == 0


def keep_last(output: OutputConfig, ending: str, count: int) -> None:
    """Delete all but the last `count` of a run's kept files whose names end so; 0 keeps all."""
    found: list[tuple[int, Path]] = []
    for path in output.output_dir.iterdir() if count else ():
        match = re.fullmatch(re.escape(output.output_name) + ending, path.name)
        if match:
            found.append((int(match[1]), path))
    for _, path in sorted(found)[:-count] if count else ():
        path.unlink(missing_ok=True)
