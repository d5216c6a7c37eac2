"""Several small networks in one forward pass of the base: each batch is repeated for each network, which acts on its own share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.log import StepLog
from train.milestones import judged
from train.optimizers import set_rates
from train.run import groups_left, record_of, start
from train.runtime import NotFiniteError, StoppedError, StopSignals
from train.shortage import ShortError, empty_caches, is_shortage, placed
from train.state import read_state
from train.step import drawn, loss_of
from train.validate import Panel

if TYPE_CHECKING:
    from torch import Tensor

    from train.adapters.network import Act, Network
    from train.dataset import Batch
    from train.families.sd import Conditioning
    from train.state import Job, TrainState


@dataclass
class Run:
    """One of several runs on the same base; `broken` says what of it became infinite or not a number, and then it is over."""

    job: Job
    state: TrainState
    broken: str = ""

    @property
    def alike(self) -> object:
        """What runs must have in common to be stacked; for a run that can be with none, itself."""
        config, state = self.job.config, self.state
        if config.network.full or config.validation.patience or self.job.runtime.scaler or self.job.runtime.processes.count > 1:
            return id(self)  # ends, or scales its loss, by itself
        place = (state.step, state.epoch, state.batch, self.job.steps)
        return repr((config.data, config.model, config.optimizer.gradient_accumulation_steps, self.job.data.text is None, place))


@contextmanager
def stacked(networks: Sequence[Network]) -> Iterator[None]:
    """Let each network act on its own of as many equal parts of every batch; they must be off the base before, and are so afterwards."""
    import torch

    modules: dict[str, Any] = {}
    acts: dict[str, list[Act | None]] = {}
    for number, network in enumerate(networks):
        for name, (module, act) in network.acting().items():
            modules[name] = module
            acts.setdefault(name, [None] * len(networks))[number] = act

    def hook(own: Sequence[Act | None]) -> Any:
        def act_on_parts(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            parts = zip(own, args[0].chunk(len(own)), output.chunk(len(own)), strict=True)
            return torch.cat([y if act is None else act(x, y) for act, x, y in parts])

        return act_on_parts

    hooks = [modules[name].register_forward_hook(hook(own)) for name, own in acts.items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def train_stacked(runs: Sequence[Run], signals: StopSignals, until: int) -> None:
    """Train runs that are `alike` up to a step, judged and saved; one that breaks is left, and the others go on.

    Where the memory does not hold all at once, each half goes on by itself. Raises ShortError where it does not hold one.
    """
    for run in runs:
        run.state.network.remove()
    try:
        with signals.held():
            _train(runs, signals, until)
        _save(runs)
        return
    except (RuntimeError, ShortError) as error:
        if not is_shortage(error):
            raise
        if len(runs) == 1:
            raise ShortError("with a single setting at a time", "lower train_batch_size or resolution, and sweep again") from error
        stepped = isinstance(error, ShortError) and error.stepped
    for run in runs:
        run.state.optimizer.zero_grad(set_to_none=True)
        if stepped:  # some weights are of a step that others have not taken
            run.state = start(run.job, read_state(run.job.config.output.file("-state.pt"), run.job.fingerprint))
            run.state.network.remove()
    empty_caches()
    for half in (runs[: len(runs) // 2], runs[len(runs) // 2 :]):
        train_stacked(half, signals, until)


def _train(runs: Sequence[Run], signals: StopSignals, until: int) -> None:
    with ExitStack() as logs:
        ends = [(logs.enter_context(_log(run, shown=number == 0)), Panel.of(run.job)) for number, run in enumerate(runs)]
        for run, end in zip(runs, ends, strict=True):
            _settle(run, end, until)
        while going := [number for number, run in enumerate(runs) if not run.broken and run.state.step < until]:
            first = runs[going[0]]
            with closing(groups_left(first.job, first.state, until)) as groups:
                for group in groups:
                    _step(group, [runs[number] for number in going], [ends[number] for number in going], until)
                    if signals.caught:
                        _save(runs)
                        raise StoppedError(signals.caught, f"stopped at step {first.state.step}")
                    if any(runs[number].broken for number in going):
                        break


def _log(run: Run, shown: bool) -> StepLog:
    return StepLog(run.job.config.output.file(".jsonl"), run.job.steps, run.state.told, shown=shown)


def _step(group: Sequence[Batch], runs: Sequence[Run], ends: Sequence[tuple[StepLog, Panel | None]], until: int) -> None:
    began = time.monotonic()
    told = take_steps(group, runs)
    seconds = round((time.monotonic() - began) / len(runs), 4)
    for run, (loss, norm, rates) in zip(runs, told, strict=True):
        if not run.broken:
            state, epoch = run.state, run.state.epoch + 1
            state.advance(run.job.data.batches_a_step, run.job.data.batches_per_epoch, loss)
            state.due = {**record_of(state, epoch, loss, norm), **rates, "seconds": seconds}
    for run, end in zip(runs, ends, strict=True):
        _settle(run, end, until)


def _settle(run: Run, end: tuple[StepLog, Panel | None], until: int) -> None:
    """Judge a run's last step and write its line, if that is not done yet."""
    (log, panel), state = end, run.state
    if state.due is None or run.broken:
        return
    state.network.put_back()
    try:
        judgement = judged(panel, run.job, state, state.step == until)
    finally:
        state.network.remove()
    log.write({**state.due, **judgement}, state.mean_loss)
    state.due = None


def _save(runs: Sequence[Run]) -> None:
    for run in runs:
        if not run.broken:
            run.state.save(run.job.config.output.file("-state.pt"), run.job.fingerprint)


def take_steps(group: Sequence[Batch], runs: Sequence[Run]) -> list[tuple[float, float, dict[str, float]]]:
    """Do one optimizer step of each run over the same batches; returns each one's mean loss of a sample, gradient norm and rates."""
    count = runs[0].job.data.batches_a_step
    rates = [set_rates(run.state.optimizer, run.job.config.optimizer, run.state.step, run.job.steps) for run in runs]
    losses, norms = [0.0] * len(runs), [math.nan] * len(runs)
    with stacked([run.state.network for run in runs]):
        for batch in group:
            parts = losses_of(batch, runs)
            for number, (run, part) in enumerate(zip(runs, parts, strict=True)):
                losses[number] += part.item() / count
                if not math.isfinite(losses[number]):
                    run.broken = "the loss is not a number"
            whole = [part for run, part in zip(runs, parts, strict=True) if not run.broken]
            if whole:
                (sum(whole[1:], whole[0]) / count).backward()
    with placed("while weights were changed", "lower --at-once", stepped=True):
        for number, run in enumerate(runs):
            if not run.broken:
                norms[number] = _update(run)
    weight = sum(batch.weight.mean().item() for batch in group) / count or 1.0
    told = [{f"lr_{part}": rate for part, rate in own.items()} for own in rates]
    return [(loss / weight, norm, own) for loss, norm, own in zip(losses, norms, told, strict=True)]


def _update(run: Run) -> float:
    network, config = run.state.network, run.job.config
    try:
        norm = run.job.runtime.update(run.state.optimizer, list(network.parameters()), config.optimizer.max_grad_norm)
    except NotFiniteError as error:
        run.broken = str(error)
        return math.nan
    if config.network.scale_weight_norms:
        network.limit_norms(config.network.scale_weight_norms)
    return norm


def losses_of(batch: Batch, runs: Sequence[Run]) -> list[Tensor]:
    """Return each run's scalar loss of a batch of B samples; the base computes once, on B samples for each run."""
    import torch

    first, count = runs[0].job, len(runs)
    batch, questions = first.runtime.moved(batch), []
    for run in runs:
        run.state.generator.manual_seed(batch.seed)  # as alone: each then draws what it would draw alone
        run.state.network.draw_dropout(run.state.generator)
        questions.append(drawn(batch, run.job.schedule, run.job.config.objective, run.state.generator))
    with first.runtime.autocast():
        noisy, timesteps = torch.cat([q.noisy_latents for q in questions]), torch.cat([q.timesteps for q in questions])
        predictions = first.model.denoise(noisy, timesteps.to(noisy.device), _conditioning(batch, first, count)).chunk(count)
        return [
            loss_of(prediction, question, batch, run.job.schedule, run.job.config.objective)
            for run, question, prediction in zip(runs, questions, predictions, strict=True)
        ]


def _conditioning(batch: Batch, job: Job, count: int) -> Conditioning:
    if batch.text is not None:
        told = batch.text
        for _ in range(count - 1):
            told = told + batch.text
        return told
    repeated = [None if t is None else t.repeat(count, *[1] * (t.ndim - 1)) for t in (batch.input_ids, batch.sizes, batch.token_weights)]
    ids, sizes, weights = repeated
    assert ids is not None
    return job.model.conditioning(ids, job.config.model.clip_skip, sizes, weights)
