"""The arithmetic of learning: how far rates, alpha and steps can move the base's weights, and how far they did; against what fp16 can hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from train.optimizers import row_of
from train.schedules import SCHEDULES, Course

if TYPE_CHECKING:
    from train.adapters.network import Network
    from train.state import Job, TrainState

# Optimizers that move a number by about the rate in each step, whatever the gradient's size -> the rate to try first, from the authors' advice.
PER_ELEMENT = {
    "adamw": 1e-4, "adamw8bit": 1e-4, "pagedadamw8bit": 1e-4, "lion": 3e-5, "lion8bit": 3e-5, "adafactor": 1e-4,
    "adamwschedulefree": 1e-4, "radamschedulefree": 1e-4,
}  # fmt: skip
# Half of fp16's relative step: an update under this share of the base's weights mostly rounds away where it is merged into them.
# Measured on the pocket base, 20 steps at a rate of 1e-6: 7.5e-5 foretold, 3.8e-5 found, 6 % of the numbers change in fp16, 0.04 % of the
# loss gone; at 1e-5 (7.5e-4 foretold) 49 % change and 0.45 % are gone; at 1e-4 94 % and 5 %.
HALF_STEP = 2.0**-12
# Share of the base's weights under which an update that was trained is next to nothing; measured as above.
NOTHING = 5e-5
# What one step may change of the base's weights. Measured likewise: a rate of 1e-2 (0.038) takes 68 % off the loss in 20 steps, 3e-2 (0.11)
# ends at three times the base's loss.
TOO_FAST = 0.1
# Share of the base's weights that a layer's update outgrew if the run broke, and that the median one did if it only fell apart. Measured:
# at 1e-2 the median is 0.32, at 3e-2 3.0, at 0.1 37; at 10 the step that overflows comes at 2.7e4.
RUNAWAY, APART = 10.0, 1.0
_BLOCK = re.compile(r"lora_(unet_(?:down_blocks_\d+|up_blocks_\d+|mid_block|input_blocks_\d+|middle_block|output_blocks_\d+)|te\d?)")
PARTS = {"unet": "UNet", "text_encoder": "text encoder"}


def set_rate(job: Job) -> float:
    """Return the highest of the rates that the settings give to a part."""
    optimizer = job.config.optimizer
    return max(optimizer.learning_rate, optimizer.unet_lr or 0.0, optimizer.text_encoder_lr or 0.0)


def advised_rate(job: Job) -> float:
    """Return a rate to try where the set one is too high."""
    optimizer = job.config.optimizer.optimizer
    if job.config.network.full:
        return min(1e-5, set_rate(job) / 10)
    if row_of(optimizer).finds_rate:
        return min(1.0, set_rate(job) / 2)
    return min(PER_ELEMENT.get(optimizer, 1e-4), set_rate(job) / 10)


def learning_arithmetic(job: Job, state: TrainState) -> list[str]:
    """Warn, before the first step, of rates at which a run can learn nothing, or must fall apart; a sentence each.

    Only what holds for every gradient is told: under Adam and its like a number moves by at most about the rate in a step, so that the
    update of a LoRA, (alpha / dim) up down, is at most rate x sqrt(out) x |down| x alpha / dim long after one.
    """
    optimizer, lines = job.config.optimizer, list[str]()
    factors = _factors(job, optimizer.learning_rate)
    for part, title in PARTS.items():
        rates = [group["base_lr"] for group in state.optimizer.param_groups if group["name"].startswith(part)]
        if rates and not max(rates):
            switch = "train_unet" if part == "unet" else "train_text_encoder"
            lines.append(f"the rate of the {title} is 0, so its part of the file stays as it began; set {_rate_name(part)}, or {switch} = false")
    if optimizer.optimizer not in PER_ELEMENT or not max(factors, default=0.0):
        return lines
    for part, title in PARTS.items():
        steps = list(one_step(job, state, part))
        if not steps or not max(step for step, _ in steps):
            continue
        first, ends = median(step for step, _ in steps) * max(factors), median(step for step, _ in steps) * sum(factors)
        shown = f"learning_rate {max(rate for _, rate in steps):g}, {_alpha(job)}, {job.steps} steps"
        if first > TOO_FAST:
            lines.append(f"the {title} will fall apart: a single step may change its weights by {first:.2g} of their size ({shown}); {_lower(job)}")
        elif ends < HALF_STEP:
            lines.append(
                f"the {title} cannot learn: all updates together change its weights by {ends:.1e} of their size at most ({shown}), which rounds to "
                f"zero in fp16, whose half step is {HALF_STEP:.1e}; raise {_raise(job)}"
            )
    return lines


def one_step(job: Job, state: TrainState, part: str) -> Iterator[tuple[float, float]]:
    """Yield for each LoRA layer of a part: how far one step at its rate moves the update, as a share of the base's weights; and the rate."""
    from train.adapters.lora import LoRALayer
    from train.stored import base_weight

    rates = {id(parameter): group["base_lr"] for group in state.optimizer.param_groups for parameter in group["params"]}
    own = {id(parameter) for parameter in state.network.parameters_of(part)}
    modules = base_modules(job)
    for name, layer in state.network.layers.items():
        if isinstance(layer, LoRALayer) and id(layer.up) in own:
            rate, weight = rates[id(layer.up)], float(base_weight(modules[name]).norm())
            yield layer.scale * rate * len(layer.up) ** 0.5 * float(layer.down.detach().norm()) / max(weight, 1e-30), rate


def relative_norms(job: Job, network: Network) -> dict[str, float]:
    """Return each layer's norm of its update as a share of the norm of the base's weight."""
    import torch

    from train.stored import base_weight

    modules = base_modules(job)
    with torch.no_grad():
        return {
            name: float(layer.weight_update().double().norm() / base_weight(modules[name]).double().norm().clamp(min=1e-30))  # type: ignore[operator]
            for name, layer in network.layers.items()
        }


def by_block(norms: Mapping[str, float]) -> dict[str, float]:
    """Return the median of `relative_norms` in each block of the UNet and in each text encoder, in the order of the layers."""
    blocks: dict[str, list[float]] = {}
    for name, norm in norms.items():
        found = _BLOCK.match(name)
        blocks.setdefault(found[1] if found else name, []).append(norm)
    return {block: median(found) for block, found in blocks.items()}


def after_training(job: Job, state: TrainState) -> list[str]:
    """Warn, after the last step, of a LoRA that learned next to nothing, or that fell apart; a sentence each."""
    with state.result():
        norms = relative_norms(job, state.network)
    if not norms:
        return []
    middle, shown = median(norms.values()), ", ".join(f"{block} {norm:.1e}" for block, norm in by_block(norms).items())
    if middle < NOTHING:
        return [f"the LoRA has learned next to nothing: its updates are this share of the base's weights: {shown}; raise {_raise(job)}"]
    if not middle <= APART:
        return [f"the LoRA fell apart: its updates are this many times the base's weights: {shown}; {_lower(job)}"]
    return []


def base_modules(job: Job) -> dict[str, Any]:
    """Return the base's layers under the names that they have in LoRA files."""
    from train.adapters.build import all_targets

    return {target.name: target.module for target in all_targets(job.model)}


def _factors(job: Job, rate: float) -> list[float]:
    """List what the schedule multiplies the rate by in each step of the run."""
    config = job.config.optimizer
    course = Course(job.steps, int(config.lr_warmup_ratio * job.steps), rate, config.lr_scheduler_num_cycles, config.lr_scheduler_power)
    return [SCHEDULES[config.lr_scheduler](step, course) for step in range(job.steps)]


def _alpha(job: Job) -> str:
    return f"alpha {job.config.network.network_alpha:g} with dim {job.config.network.network_dim}"


def _raise(job: Job) -> str:
    """Name what is the lowest of the settings that make an update small."""
    network = job.config.network
    low_alpha = network.network_alpha < network.network_dim / 16
    return f"network_alpha, to {network.network_dim}, or learning_rate" if low_alpha else "learning_rate, or train more steps"


def _lower(job: Job) -> str:
    return f"lower learning_rate to {advised_rate(job):g}"


def _rate_name(part: str) -> str:
    return "unet_lr" if part == "unet" else "text_encoder_lr"
