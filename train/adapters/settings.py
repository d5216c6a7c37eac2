"""Which settings of the adapter cannot stand together, each with the sentence that says so, and the arguments of an algorithm."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.adapters import ADAPTERS
from train.adapters.blocks import COURSES, numbers
from train.adapters.plan import patterns

if TYPE_CHECKING:
    from train.config import NetworkConfig

LISTS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight", "up_lr_weight")
DROPOUTS = ("network_dropout", "rank_dropout", "module_dropout")


def algo_arguments(config: NetworkConfig) -> dict[str, Any]:
    """Read network_args as "key=value key=value" over the algorithm's defaults; raises UserError."""
    row = ADAPTERS[config.network_algo]
    found = dict(row.arguments)
    for pair in config.network_args.split():
        key, _, value = pair.partition("=")
        if key not in row.arguments:
            near = difflib.get_close_matches(key, row.arguments, 1)
            takes = f", did you mean {near[0]}?" if near else f"; it takes {', '.join(row.arguments) or 'none'}"
            raise UserError(f"network_args holds {key}, which {config.network_algo} does not know{takes}")
        wanted = row.arguments[key]
        try:
            given = ast.literal_eval(value.capitalize() if value in ("true", "false") else value)
        except (ValueError, SyntaxError):
            given = None
        if isinstance(given, bool) != isinstance(wanted, bool) or not isinstance(given, int | float):
            raise UserError(f"network_args holds {pair!r}; {key} is {'true or false' if isinstance(wanted, bool) else 'a number'}")
        found[key] = given
    return found


def conflicts_of_network(config: NetworkConfig) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is wrong, the sentence) for each check that needs no base model."""
    row, algo = ADAPTERS[config.network_algo], config.network_algo
    for text in _unreadable(config):
        yield True, text
    for name in DROPOUTS:
        yield bool(getattr(config, name)) and name not in row.dropouts, f"{algo} has no {name}; set it to 0, or take {' or '.join(row.dropouts)}"
    yield config.rs_lora and not row.has_rank, f"{algo} has no alpha that rs_lora could scale; set rs_lora = false"
    plus = max(config.loraplus_lr_ratio, config.loraplus_unet_lr_ratio or 1, config.loraplus_text_encoder_lr_ratio or 1)
    yield plus > 1 and algo not in ("lora", "dora"), f"{algo} has no up half, which loraplus_lr_ratio is for; set it to 1"
    yield bool(config.scale_weight_norms) and algo not in ("lora", "loha", "lokr"), f"scale_weight_norms does not work with {algo}; set it to 0"
    yield config.conv_alpha is not None and not (config.conv_dim or config.conv_block_dims), "conv_alpha is set and conv_dim is 0; set conv_dim"
    for dims, alphas in (("block_dims", "block_alphas"), ("conv_block_dims", "conv_block_alphas")):
        yield bool(getattr(config, alphas)) and not getattr(config, dims), f"{alphas} is set and {dims} is not; set both"
    yield config.dim_from_weights and not config.network_weights, "dim_from_weights is set and network_weights is not; give the LoRA file"
    yield bool(config.base_weights_multiplier) and not config.base_weights, "base_weights_multiplier is set and base_weights is not; give the files"


def _unreadable(config: NetworkConfig) -> Iterator[str]:
    for name in LISTS:
        text = getattr(config, name)
        course = text.partition("+")[0].strip() in COURSES and name.endswith("lr_weight")
        if text and not course:
            yield from _fault(numbers, text, name)
    for name in ("network_reg_dims", "network_reg_lrs"):
        yield from _fault(patterns, getattr(config, name), name)
    yield from _fault(algo_arguments, config)
    if config.base_weights:
        yield from _fault(merge_strengths, config)


def _fault(check: Any, *args: Any) -> Iterator[str]:
    try:
        check(*args)
    except UserError as error:
        yield str(error)


def merge_strengths(config: NetworkConfig) -> list[tuple[Path, float]]:
    """List the files of base_weights, each with its multiplier; raises UserError if the numbers do not fit."""
    paths = [Path(path.strip()).expanduser() for path in config.base_weights.split("|") if path.strip()]
    text = config.base_weights_multiplier
    try:
        strengths = [float(word) for word in text.replace(",", " ").split()] if text else [1.0] * len(paths)
    except ValueError:
        raise UserError(f'base_weights_multiplier = "{text}" is no list of numbers; write it as "1,0.5"') from None
    if len(strengths) != len(paths):
        raise UserError(f"base_weights names {len(paths)} files and base_weights_multiplier {len(strengths)} numbers; give one for each file")
    return list(zip(paths, strengths, strict=True))
