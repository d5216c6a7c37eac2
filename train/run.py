"""A training run from top to bottom: check, load, train step by step, save, read back, draw samples."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from prep.tree import Folder, read_tree, validate
from train.compiled import compiled
from train.config import DataConfig, TrainConfig
from train.conflicts import rate_note
from train.control import Control
from train.diagnose import why
from train.ema import Ema
from train.fingerprint import fingerprint_of, finished_run, weights_digest
from train.ladder import fitted, hold
from train.learning import learning_arithmetic
from train.log import StepLog, open_board, track
from train.memory import check_network
from train.milestones import settle
from train.noise import NoiseSchedule, with_zero_terminal_snr
from train.optimizers import build_optimizer, describe_rates, optimizer_maker, samples_per_step, set_rates
from train.per_picture import truncation_notes
from train.prefetch import ahead
from train.processes import Processes
from train.relief import advice, lighter, relieved
from train.result import RunResult, save_result
from train.rotation import forget, last_step, rotate
from train.runtime import NotFiniteError, Runtime, StoppedError, StopSignals
from train.shortage import ShortError, is_shortage, placed
from train.spill import SpillWatch
from train.state import Job, TrainState, read_state
from train.step import training_step
from train.validate import Panel
from train.verdict import exhausted

if TYPE_CHECKING:
    from train.dataset import Batch
    from train.families.sd import Model
    from train.validate import Judgement

SHOWN = 3  # findings of the tree check that are named in full


def run(config: TrainConfig, restart: bool = False) -> RunResult:
    """Train one LoRA and return where it is; a run that was stopped goes on, unless `restart`."""
    processes = Processes.join()
    with processes.quiet(), StopSignals() as signals:
        folders = checked_tree(config.data)
        runtime, model = open_base(config, processes)
        fingerprint = fingerprint_of(config, folders, model.digest, processes.count)
        if restart:
            with processes.first_alone():
                config.output.file("-state.pt").unlink(missing_ok=True)
        elif done := finished_run(config.output, fingerprint):
            print(f"{config.output.file('.safetensors')} is the result of these settings already; give --restart to train it again")
            sheet = config.output.file("-samples.png")
            return RunResult(config.output.file(".safetensors"), done["steps"], done["loss"], sheet if sheet.exists() else None)
        saved = read_state(config.output.file("-state.pt"), fingerprint)
        rotation = rotate(config, (runtime, model, folders), signals) if config.validation.validation_folds else None
        job = prepare(config, runtime, model, fingerprint)
        state = start(job, saved)
        announce(job, state)
        job, state = train_fitting(job, state, signals, last_step(job, rotation) if rotation else None)
        if processes.first:
            result = save_fitting(job, state, rotation.judgements if rotation else ())
            forget(config)
        else:
            result = RunResult(config.output.file(".safetensors"), state.step, state.mean_loss, None)
        processes.leave()
    return result


def open_base(config: TrainConfig, processes: Processes) -> tuple[Runtime, Model]:
    """Choose where to compute and load the base model as the settings want it."""
    import torch

    from train.adapters.build import merge_base_weights
    from train.families import load_model

    runtime = Runtime.choose(config.output.mixed_precision, processes)
    print(f"computing on {runtime.description}")
    optimizer_maker(config.optimizer)  # one that is not installed, or cannot do it, is said before a base model is loaded
    # What is only cast and moved goes to the GPU straight from the file; merging and a full fine-tune compute with float32.
    straight = runtime.casts_base and not config.network.full and not config.network.base_weights
    model = load_model(config.model.base, vae=config.model.vae, prediction_type=config.model.prediction_type, as_stored=straight)
    model.scheduler_config = with_zero_terminal_snr(model.scheduler_config, config.objective.zero_terminal_snr)  # samples are drawn by it too
    for line in merge_base_weights(config.network, model):
        print(line)
    model.digest = weights_digest((model.unet, model.vae, *model.text_encoders))
    for encoder in model.text_encoders if straight else ():
        encoder.to(dtype=torch.float32)  # in which captions are encoded
    return runtime, model


def checked_tree(config: DataConfig) -> list[Folder]:
    """Read the tree; raises UserError with the first errors that the tree check finds."""
    findings = validate(config.tree, config.keyword, config.enable_wildcard)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        more = f"; and {len(errors) - SHOWN} more, `prep check` lists them" if len(errors) > SHOWN else ""
        raise UserError("; ".join(f"{e.path}: {e.message.rstrip('.')}" for e in errors[:SHOWN]) + more)
    if findings:
        print(f"the tree has {len(findings)} warnings, `prep check` lists them")
    return read_tree(config.tree)


def prepare(config: TrainConfig, runtime: Runtime, model: Model, fingerprint: dict[str, Any], fold: int | None = None) -> Job:
    """Encode the pictures, then make room for training (train/memory.py).

    `fold` is the number of the part that is held out instead of validation_split's.
    """
    from train.dataset import TrainingSet

    with placed("while the VAE was moved to the device", "close what else uses its memory, and run again"):
        model.vae.to(runtime.device)
    with runtime.processes.first_alone():
        data = TrainingSet.load(config, model, track, runtime.processes.count, fold)
    ladder = fitted(config, runtime, model, data)
    config = hold(config, ladder, runtime, model, data.text is None)
    schedule = NoiseSchedule.from_config(model.scheduler_config, model.prediction_type)
    return Job(config, runtime, model, data, schedule, fingerprint, data.steps, ladder, SpillWatch(runtime.device))


def start(job: Job, saved: Mapping[str, Any] | None) -> TrainState:
    """Attach a fresh LoRA, or the one of the saved state with its optimizer and generator."""
    import torch

    from train.adapters.build import build_network
    from train.full import full_network

    config = job.config
    generator = torch.Generator().manual_seed(config.output.seed)  # set anew by each batch: all chance is a function of seed and batch
    network = full_network(config, job.model) if config.network.full else build_network(config.network, job.model, generator).to(job.runtime.device)
    check_network(network, config.memory)
    state = TrainState(
        network, build_optimizer(config.optimizer, network, samples_per_step(config, job.runtime.processes.count)), generator, job.runtime.scaler
    )
    if config.output.ema_decay:
        state.ema = Ema.of(state.parameters, config.output.ema_decay)
    if saved:
        state.restore(saved)
    return state


def announce(job: Job, state: TrainState) -> None:
    """Print what the run will do, in the numbers a user checks first."""
    data, optimizer, counts = job.config.data, job.config.optimizer, job.data.summary()
    repeats = sorted({folder["n_repeats"] for folder in counts["dataset_dirs"].values()})
    gathered = f" / {job.data.batches_a_step} a step" if job.data.batches_a_step > 1 else ""
    print(
        f"{counts['pictures']} pictures x {' or '.join(map(str, repeats))} repeats + {counts['reg_samples']} reg = "
        f"{counts['train_samples'] + counts['reg_samples']} samples, batch {data.train_batch_size} -> {job.data.batches_per_epoch} batches{gathered} "
        f"x {data.num_epochs} epochs = {job.steps} steps" + (" (max_train_steps)" if job.steps == data.max_train_steps else "")
    )
    for note in (*job.data.notes(), *truncation_notes(job.data.pictures, job.config), *learning_arithmetic(job, state)):
        print(note)
    if note := rate_note(job.config):
        print(note)
    rates = describe_rates(optimizer, state.network, samples_per_step(job.config, job.runtime.processes.count))
    print(f"learning rates: {rates} ({optimizer.optimizer}, {optimizer.lr_scheduler})")
    if state.step:
        print(f"going on from step {state.step}, saved in {job.config.output.file('-state.pt')}")


def train_fitting(job: Job, state: TrainState, signals: StopSignals, until: int | None = None) -> tuple[Job, TrainState]:
    """Train as `train` does, under `fit` a rung lower each time that there is no memory; returns what all steps were taken with.

    What was trained stays in memory, but for a step that broke while it changed weights: then the last saved state is where it goes on.
    Raises ShortError, with the state saved, where there is no lower rung.
    """
    while True:
        try:
            with compiled(job, state):
                return train(job, state, signals, until), state
        except ShortError as error:
            short = _bare(error)
        job = relieved(job, state, short)
        if short.stepped:
            state.network.remove()
            state = start(job, read_state(job.config.output.file("-state.pt"), job.fingerprint))


def save_fitting(job: Job, state: TrainState, course: Sequence[Judgement]) -> RunResult:
    """Save and show the result as `save_result` does, which is the same each time, under `fit` a rung lower each time that there is no memory."""
    while True:
        words = advice(job.config, "set report_pictures = false, or sample_steps = 0, and run again: what was trained is kept")
        try:
            with placed("while the result was shown", words):
                return save_result(job, state, course)
        except ShortError as error:
            short = _bare(error)
        job = relieved(job, state, short)


def _bare(error: ShortError) -> ShortError:
    """Return an error without what its step had in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def train(job: Job, state: TrainState, signals: StopSignals, until: int | None = None) -> Job:
    """Take all steps that are left, saving the state on the way, at the end, and when a signal asks to stop; returns how the run was held.

    With `until` the run pauses after that step, judged and saved. What was still due of the last step is done first.
    """
    processes, until = job.runtime.processes, job.steps if until is None else until
    control, panel = Control(job.config.output.file(".control")), Panel.of(job)
    board = open_board(job.config, state.told) if processes.first else None
    log_of = StepLog(job.config.output.file(".jsonl"), job.steps, state.told, board) if processes.first else nullcontext()
    with log_of as log, signals.held():
        if state.due is not None:
            settle(panel, job, state, until, log, control)
            keep(job, state, signals, control, finished(job, state, until))
        with closing(groups_left(job, state, until)) as groups:
            for group in groups:
                began, epoch = time.monotonic(), state.epoch + 1
                loss, grad_norm, rates = take_step(group, job, state)
                state.advance(job.data.batches_a_step, job.data.batches_per_epoch, loss)
                state.due = {**record_of(state, epoch, loss, grad_norm), **rates, "seconds": round(time.monotonic() - began, 4)}
                settle(panel, job, state, until, log, control)
                keep(job, state, signals, control, finished(job, state, until))
                job = lighter(job, state)
    return job


def keep(job: Job, state: TrainState, signals: StopSignals, control: Control, over: bool) -> None:
    """Save the state if that is due, and stop if a signal asks for it, or `train control` did and the epoch is at its end."""
    processes, path, every = job.runtime.processes, job.config.output.file("-state.pt"), job.config.output.save_state_every_n_steps
    at_end = control.stopping and state.batch == 0 and not over
    signal, stopping = processes.greatest(signals.caught or 0, int(at_end or signals.caught is not None))
    if processes.first and (stopping or over or (every and state.step % every == 0)):
        state.save(path, job.fingerprint)
    if stopping:
        raise StoppedError(signal, f"stopped at step {state.step} of {job.steps}; `train run` goes on from {path}")


def record_of(state: TrainState, epoch: int, loss: float, grad_norm: float) -> dict[str, Any]:
    """Return what the log tells first of the step just taken."""
    norm = grad_norm if math.isfinite(grad_norm) else None  # fp16 skips a step that overflows
    return {"step": state.step, "epoch": epoch, "loss": loss, "mean_loss": state.mean_loss, "grad_norm": norm}


def finished(job: Job, state: TrainState, until: int) -> bool:
    """Say whether all steps are taken, up to `until`, or as many as `patience` allows."""
    return state.step >= until or exhausted(state.judged(), job.config.validation.patience)


def groups_left(job: Job, state: TrainState, until: int) -> Generator[list[Batch], None, None]:
    """Yield this process's batches of each step that is left, perhaps none; those of the next step are read while one is taken."""
    planned = itertools.islice(groups_from(job, state.epoch, state.batch), max(0, until - state.step))
    with closing(ahead([job.runtime.pinned(batch) for batch in group] for group in planned)) as groups:
        while not finished(job, state, until):
            yield next(groups)


def groups_from(job: Job, epoch: int, batch: int) -> Iterator[list[Batch]]:
    """Yield this process's batches of one step after another, without end, from a batch of an epoch on; no step reaches over an epoch's end."""
    size = job.config.optimizer.gradient_accumulation_steps
    while True:
        batches = job.data.batches(epoch, *job.runtime.processes.share(batch))
        for _ in range(batch, job.data.batches_per_epoch, job.data.batches_a_step):
            yield list(itertools.islice(batches, size))
        epoch, batch = epoch + 1, 0


def take_step(group: Sequence[Batch], job: Job, state: TrainState) -> tuple[float, float, dict[str, float]]:
    """Do one optimizer step over its batches; returns the mean loss of a sample, the gradient's norm and the rates."""
    config, runtime, count = job.config, job.runtime, job.data.batches_a_step
    rates = set_rates(state.optimizer, config.optimizer, state.step, job.steps)
    loss, stepped = 0.0, False
    if state.regions:
        state.regions.begin_step()
    try:
        for batch in group:
            state.generator.manual_seed(batch.seed)
            state.network.draw_dropout(state.generator)
            with runtime.autocast():
                batch_loss = training_step(runtime.moved(batch), job.model, job.schedule, config, state.generator)
            # divided by the full count also where an epoch ends early: every sample then counts alike
            loss += runtime.backward(batch_loss / count)
        stepped = True
        norm = runtime.update(state.optimizer, list(state.network.parameters()), config.optimizer.max_grad_norm)
        limited = state.network.limit_norms(config.network.scale_weight_norms) if config.network.scale_weight_norms else {}
    except NotFiniteError as error:
        if state.regions:
            state.regions.remove()  # what is replayed must show each layer
        raise UserError(f"{error} at step {state.step + 1}{why(group, job, state)}") from error
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        raise ShortError(f"at step {state.step + 1}", advice(config), stepped) from error
    loss, weight = runtime.processes.total(loss, sum(batch.weight.mean().item() for batch in group) / count)
    return loss / (weight or 1.0), norm, {**{f"lr_{part}": rate for part, rate in rates.items()}, **limited}
