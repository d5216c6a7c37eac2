"""Optimizers: one table of rows, imported on use; and the parameter groups with each part's own learning rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.config import OptimizerConfig, TrainConfig
from train.optimizer_classes import Maker, check_arguments, load_class, parse_arguments, try_out, uncompiled
from train.schedules import SCHEDULES, Course

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from train.adapters.network import Network

FOREIGN = "pytorch_optimizer:"  # what is before the class's name in a setting that asks for one of that package


@dataclass(frozen=True)
class OptimizerRow:
    """A row of OPTIMIZERS: the class as "module:Class", what it is called with beside the rate, and what the run must know of it."""

    optimizer_class: str
    description: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    extra: str = ""  # the extra of this project that installs it
    finds_rate: bool = False  # multiplies what it finds by the learning rate, which is 1 then
    schedule_free: bool = False  # has training weights and resulting weights, and wants no schedule


DECAY = {"weight_decay": 0.01}

OPTIMIZERS: dict[str, OptimizerRow] = {
    # One kernel for all weights, which torch has for every device that a run may choose.
    "adamw": OptimizerRow("torch.optim:AdamW", "Adam with decoupled weight decay; the safe choice.", {**DECAY, "fused": True}),
    "adamw8bit": OptimizerRow("bitsandbytes.optim:AdamW8bit", "AdamW with a quarter of its memory.", DECAY, "8bit"),
    "pagedadamw8bit": OptimizerRow("bitsandbytes.optim:PagedAdamW8bit", "The same, moved off the GPU when memory is short.", DECAY, "8bit"),
    "lion": OptimizerRow("train.lion:Lion", "The sign of the momentum; wants a third to a tenth of AdamW's rate.", DECAY),
    "lion8bit": OptimizerRow("bitsandbytes.optim:Lion8bit", "Lion with a quarter of its memory.", DECAY, "8bit"),
    # The three flags off: the rate is ours to set, not derived from the weights or the step.
    "adafactor": OptimizerRow(
        "transformers.optimization:Adafactor",
        "Factored second moments; little memory.",
        {"scale_parameter": False, "relative_step": False, "warmup_init": False},
    ),
    # The two flags as Prodigy's authors advise for diffusion models.
    "prodigy": OptimizerRow(
        "prodigyopt:Prodigy",
        "Finds the rate by itself.",
        {**DECAY, "use_bias_correction": True, "safeguard_warmup": True},
        "optimizers",
        finds_rate=True,
    ),
    "dadaptadam": OptimizerRow(
        "dadaptation:DAdaptAdam", "Finds Adam's rate by itself, slower.", {**DECAY, "decouple": True}, "optimizers", finds_rate=True
    ),
    "dadaptlion": OptimizerRow("dadaptation:DAdaptLion", "Finds Lion's rate by itself.", DECAY, "optimizers", finds_rate=True),
    "adamwschedulefree": OptimizerRow(
        "schedulefree:AdamWScheduleFree", "AdamW that averages in place of a schedule.", DECAY, "optimizers", schedule_free=True
    ),
    "radamschedulefree": OptimizerRow("schedulefree:RAdamScheduleFree", "The same, with its own warm-up.", DECAY, "optimizers", schedule_free=True),
    "sgdnesterov": OptimizerRow("torch.optim:SGD", "Plain descent with momentum; wants a high rate.", {"nesterov": True, "momentum": 0.9}),
}


def row_of(name: str) -> OptimizerRow:
    """Return the row of a setting, made up for a class of pytorch-optimizer."""
    return OptimizerRow(name, "One of pytorch-optimizer.", extra="optimizers") if name.startswith(FOREIGN) else OPTIMIZERS[name]


def learning_rates(config: OptimizerConfig, samples: int | None = None) -> dict[str, float]:
    """Say each part's base rate: its own, or the common one; under scale_lr times the samples of a step (https://arxiv.org/abs/1706.02677)."""
    own = {"unet": config.unet_lr, "text_encoder": config.text_encoder_lr}
    if config.scale_lr and samples is None:
        raise ValueError("scale_lr is set, and nobody says how many samples a step has")
    factor = samples if config.scale_lr and samples else 1
    return {part: factor * (config.learning_rate if rate is None else rate) for part, rate in own.items()}


def samples_per_step(config: TrainConfig, processes: int = 1) -> int:
    """Count the samples that one step of the optimizer sees: the batches that make it, on all processes together."""
    return config.data.train_batch_size * config.optimizer.gradient_accumulation_steps * processes


def describe_rates(config: OptimizerConfig, network: Network, samples: int | None = None) -> str:
    """Say the rates of the parts that are trained, and what multiplied them."""
    plain = learning_rates(dataclasses.replace(config, scale_lr=False))
    rates = {part: rate for part, rate in learning_rates(config, samples).items() if network.parameters_of(part)}
    scaled = {part: f" ({plain[part]:g} x {samples} samples a step)" if config.scale_lr else "" for part in rates}
    return ", ".join(f"{part} {rate:g}{scaled[part]}" for part, rate in rates.items())


def build_optimizer(config: OptimizerConfig, network: Network, samples: int | None = None) -> Optimizer:
    """Make the optimizer with one group per learning rate; a group remembers its name and base rate.

    `samples` are those of one step on all processes together, for scale_lr. Raises UserError as `optimizer_maker` does.
    """
    rates = learning_rates(config, samples)
    groups = [
        {"params": group.parameters, "lr": rate, "name": group.name, "base_lr": rate}
        for group in network.groups()
        for rate in (group.learning_rate(rates[group.part]),)
    ]
    if row_of(config.optimizer).finds_rate and len({group["lr"] for group in groups if group["lr"]}) > 1:
        raise UserError(f"{config.optimizer} finds one rate for all that is trained; give no part, block or half a rate of its own")
    return optimizer_maker(config)(groups)


def optimizer_maker(config: OptimizerConfig) -> Maker:
    """Return what makes the set optimizer of parameter groups, ready to train.

    Raises UserError if its package is not installed, it takes no such arguments, or it is a stranger that cannot do the work; all that
    can be seen before a base model is loaded.
    """
    row, arguments = row_of(config.optimizer), parse_arguments(config.optimizer_args)
    found: Any = load_class(row.optimizer_class, row.extra)
    check_arguments(found, arguments)
    found, arguments = uncompiled(found), {"lr": config.learning_rate, **row.defaults, **arguments}

    def make(groups: list[dict[str, Any]]) -> Any:
        optimizer = found(groups, **arguments)
        if hasattr(optimizer, "train"):  # the schedule-free ones step in this mode only
            optimizer.train()
        return optimizer

    if config.optimizer.startswith(FOREIGN):
        try_out(config.optimizer, make)
    return make


@contextmanager
def resulting_weights(optimizer: Any) -> Iterator[None]:
    """Let the parameters be the result so far, to save or to draw: a schedule-free optimizer trains at others (https://arxiv.org/abs/2405.15682).

    Afterwards they have the very values they had, since going there and back would round, and a run that drew samples would be another.
    """
    import torch

    if not hasattr(optimizer, "eval"):
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for parameter, value in zip(parameters, own, strict=True):
                parameter.copy_(value)


def set_rates(optimizer: Optimizer, config: OptimizerConfig, step: int, total: int) -> dict[str, float]:
    """Set every group's rate for a step counted from 0, and return the rates by part.

    Steps are the optimizer's, whatever batches and processes make one.
    """
    warmup = int(config.lr_warmup_ratio * total)
    for group in optimizer.param_groups:
        course = Course(total, warmup, group["base_lr"], config.lr_scheduler_num_cycles, config.lr_scheduler_power)
        group["lr"] = group["base_lr"] * SCHEDULES[config.lr_scheduler](step, course)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
