"""Optimizers: one table of rows, imported on use; and the parameter groups with each part's own learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prep.options import load_object
from train.config import OptimizerConfig
from train.schedules import SCHEDULES, Course

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from train.adapters.lora import LoRANetwork


@dataclass(frozen=True)
class OptimizerRow:
    """A row of OPTIMIZERS: the class as "module:Class", what it is called with beside the rate, and a description."""

    optimizer_class: str
    description: str
    defaults: Mapping[str, Any] = field(default_factory=dict)


OPTIMIZERS: dict[str, OptimizerRow] = {
    "adamw": OptimizerRow("torch.optim:AdamW", "Adam with decoupled weight decay; the safe choice.", {"weight_decay": 0.01}),
    # The three flags off: the rate is ours to set, not derived from the weights or the step.
    "adafactor": OptimizerRow(
        "transformers.optimization:Adafactor",
        "Factored second moments; little memory.",
        {"scale_parameter": False, "relative_step": False, "warmup_init": False},
    ),
    "lion": OptimizerRow("train.lion:Lion", "The sign of the momentum; wants a third to a tenth of AdamW's rate.", {"weight_decay": 0.01}),
}


def learning_rates(config: OptimizerConfig) -> dict[str, float]:
    """Say each part's base rate: its own, or the common one."""
    own = {"unet": config.unet_lr, "text_encoder": config.text_encoder_lr}
    return {part: config.learning_rate if rate is None else rate for part, rate in own.items()}


def build_optimizer(config: OptimizerConfig, network: LoRANetwork) -> Optimizer:
    """Make the optimizer with one group per trained part; a group remembers its part's name and base rate."""
    row = OPTIMIZERS[config.optimizer]
    groups = [
        {"params": network.parameters_of(part), "lr": rate, "name": part, "base_lr": rate}
        for part, rate in learning_rates(config).items()
        if network.parameters_of(part)
    ]
    return load_object(row.optimizer_class)(groups, lr=config.learning_rate, **row.defaults)


def set_rates(optimizer: Optimizer, config: OptimizerConfig, step: int, total: int) -> dict[str, float]:
    """Set every group's rate for a step counted from 0, and return the rates by part."""
    warmup = int(config.lr_warmup_ratio * total)
    for group in optimizer.param_groups:
        course = Course(total, warmup, group["base_lr"], config.lr_scheduler_num_cycles, config.lr_scheduler_power)
        group["lr"] = group["base_lr"] * SCHEDULES[config.lr_scheduler](step, course)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
