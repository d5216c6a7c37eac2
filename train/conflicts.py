"""Which settings of objective and optimizer cannot stand together, each with the sentence that says so; checked before any weight loads."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prep.options import UserError
from train.adapters import ADAPTERS
from train.ladder import parse_bytes
from train.log import BOARDS, missing
from train.optimizer_classes import parse_arguments
from train.optimizers import FOREIGN, OPTIMIZERS, learning_rates, row_of
from train.timesteps import DENSITIES

if TYPE_CHECKING:
    from train.config import ObjectiveConfig, TrainConfig

# A rate below this under an optimizer that finds its own makes it learn next to nothing; sd-scripts warns at the same number.
LOWEST_FACTOR = 0.1
# Settings of the network that a full fine-tune has as well.
HIGHEST_FULL_RATE = 2e-5  # the authors of DreamBooth took 1e-5 for Imagen and 5e-6 for Stable Diffusion (arxiv.org/abs/2208.12242)
FULL = ("full", "train_unet", "train_text_encoder")


def conflicts_of_training(config: TrainConfig) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is wrong, the sentence) for each check."""
    yield from _of_objective(config.objective)
    yield from _of_optimizer(config)
    yield from _of_full(config)
    yield from _of_memory(config)
    log_with = config.output.log_with
    yield log_with in BOARDS and missing(log_with), f'log_with = "{log_with}" needs a package; run `pip install {log_with}`, or leave log_with away'


def _of_full(config: TrainConfig) -> Iterator[tuple[bool, str]]:
    network, plain = config.network, type(config.network)()
    others = [f.name for f in dataclasses.fields(network) if f.name not in FULL and getattr(network, f.name) != getattr(plain, f.name)]
    others += ["save_format"] if config.output.save_format != "kohya" else []
    yield (
        network.full and bool(others),
        f"full = true trains the base's own weights, which {', '.join(others)} cannot apply to; leave {'it' if len(others) == 1 else 'them'} away",
    )


def _of_memory(config: TrainConfig) -> Iterator[tuple[bool, str]]:
    network, memory = config.network, config.memory
    asked = [name for name, on in (("base_precision", memory.base_precision != "auto"), ("blocks_to_swap", bool(memory.blocks_to_swap))) if on]
    words = " and ".join(asked)
    limit = memory.memory_limit
    if limit:
        try:
            parse_bytes(limit)
        except UserError as error:
            yield True, str(error)
    yield bool(limit) and not memory.fit, f"memory_limit = {limit!r} is what fit keeps to, which is off; set fit = true"
    yield bool(asked) and network.full, f"full = true trains the weights that {words} would hold otherwise; leave {words} away"
    algo, reads = network.network_algo, not network.full and ADAPTERS[network.network_algo].reads_base
    yield (
        bool(asked) and reads,
        f"{algo} computes with the base's own weights, so {words} cannot go with it; take lora, or leave {words} away",
    )


def _of_objective(objective: ObjectiveConfig) -> Iterator[tuple[bool, str]]:
    offset, scale = objective.noise_offset, objective.timestep_density_scale
    low, high = DENSITIES[objective.timestep_density].scales
    yield (
        bool(objective.min_snr_gamma and objective.debiased_estimation_loss),
        "min_snr_gamma and debiased_estimation_loss both weigh timesteps; set one of them",
    )
    yield (
        bool(offset and objective.multires_noise_iterations),
        "noise_offset and multires_noise_iterations both add coarse noise; set one of them",
    )
    yield (
        not offset and bool(objective.adaptive_noise_scale or objective.noise_offset_random_strength),
        "adaptive_noise_scale and noise_offset_random_strength change noise_offset, which is 0; set it, 0.05 is usual",
    )
    yield (
        objective.ip_noise_gamma_random_strength and not objective.ip_noise_gamma,
        "ip_noise_gamma_random_strength changes ip_noise_gamma, which is 0; set it, 0.1 is usual",
    )
    yield (
        objective.max_timestep is not None and objective.min_timestep >= objective.max_timestep,
        "min_timestep is not below max_timestep; leave a range between them",
    )
    yield (
        not low <= scale <= high,
        f"timestep_density_scale is {scale:g}, but {objective.timestep_density} takes {low:g} to {high:g}; set it within",
    )


def _of_optimizer(config: TrainConfig) -> Iterator[tuple[bool, str]]:
    optimizer, name = config.optimizer, config.optimizer.optimizer
    if name not in OPTIMIZERS and not (name.startswith(FOREIGN) and name != FOREIGN):
        near = difflib.get_close_matches(name.lower(), OPTIMIZERS, 1)
        meant = f", did you mean {near[0]}?" if near else f"; take one of {', '.join(OPTIMIZERS)} or {FOREIGN}CLASS"
        yield True, f"there is no optimizer {name!r}{meant}"
        return
    try:
        parse_arguments(optimizer.optimizer_args)
    except UserError as error:
        yield True, str(error)
    row = row_of(name)
    rates = {rate for rate in learning_rates(optimizer, samples=1).values() if rate}
    yield (
        row.finds_rate and bool(rates) and max(rates) < LOWEST_FACTOR,
        f"{name} finds the rate by itself and only multiplies it by learning_rate, which is {max(rates, default=0):g}; set learning_rate = 1",
    )
    yield row.finds_rate and len(rates) > 1, f"{name} finds one rate for all parts; set unet_lr and text_encoder_lr alike, or one of them to 0"
    yield row.finds_rate and optimizer.scale_lr, f"{name} finds the rate by itself, which scale_lr would multiply; set scale_lr = false"
    yield (
        row.schedule_free and not optimizer.lr_scheduler.startswith("constant"),
        f'{name} takes the place of a schedule; set lr_scheduler = "constant_with_warmup" or "constant"',
    )
    yield row.schedule_free and bool(config.output.ema_decay), f"{name} averages the weights by itself; set ema_decay = 0"


def rate_note(config: TrainConfig) -> str:
    """Say of a full fine-tune's rate that it is an adapter's, if it is; else nothing."""
    optimizer = config.optimizer
    highest = max(learning_rates(optimizer, 1).values())
    if not config.network.full or row_of(optimizer.optimizer).finds_rate or optimizer.optimizer.startswith("sgd") or highest <= HIGHEST_FULL_RATE:
        return ""
    return f"a learning rate of {highest:g} is an adapter's and high for whole weights; 1e-6 to 1e-5 is usual for a full fine-tune"
