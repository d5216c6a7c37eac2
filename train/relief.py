"""What a run does when memory is short or spills: it is held a rung lower under `fit`, else it says what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.ladder import go_down

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.shortage import ShortError
    from train.state import Job, TrainState


def advice(config: TrainConfig, else_: str = "lower train_batch_size or resolution, and run again") -> str:
    """Say what to do when a run finds no memory."""
    return else_ if config.memory.fit else f"set fit = true, or {else_}"


def relieved(job: Job, state: TrainState, short: ShortError) -> Job:
    """Hold a run that found no memory a rung lower and return it so.

    Where there is no lower rung the state is saved, if it is of a step, and the error raised.
    """
    state.optimizer.zero_grad(set_to_none=True)
    if job.ladder is not None and job.runtime.processes.count == 1:
        print(f"out of memory {short.place}")
        if go_down(job.ladder, job.runtime, job.model, job.data.text is None):
            return job.as_held()
    if not short.stepped and job.runtime.processes.first:
        state.save(job.config.output.file("-state.pt"), job.fingerprint)
    raise short


def lighter(job: Job, state: TrainState) -> Job:
    """Look whether a run spills; then hold it a rung lower, its blocks no longer compiled, or say once what would help."""
    found = job.spill.look() if job.spill else ""
    if not found or not job.spill:
        return job
    if job.ladder is not None and job.runtime.processes.count == 1:
        print(found)
        if state.regions:
            state.regions.remove()
        if go_down(job.ladder, job.runtime, job.model, job.data.text is None):
            return job.as_held()
        found = "there is no lower rung"
    job.spill.told = True
    print(f"{found}; {advice(job.config, 'lower train_batch_size or resolution')}")
    return job
