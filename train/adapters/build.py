"""From settings to the network that is trained: which layers, which adapter, from which start; and LoRAs merged into the base first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from prep.options import UserError, load_object
from train.adapters import ADAPTERS, Target
from train.adapters.blocks import SDXL, numbering_of
from train.adapters.convolutions import convolution_targets
from train.adapters.dropout import Dropouts
from train.adapters.network import Network, by_layer, check_family
from train.adapters.plan import LayerPlan, needs_convolutions, plan_layers
from train.adapters.settings import algo_arguments, merge_strengths

if TYPE_CHECKING:
    from train.config import NetworkConfig


class Base(Protocol):
    """What is asked of a base model here."""

    unet: Any

    def targets(self) -> Sequence[Target]:
        """List the layers of text encoders and transformers."""


def all_targets(model: Base) -> list[Target]:
    """List every layer that some LoRA file may hold: transformers, text encoders, residual blocks."""
    targets = list(model.targets())
    names = [target.name for target in targets]
    return [*targets, *convolution_targets(model.unet, numbering_of(names) is SDXL)]


def build_network(config: NetworkConfig, model: Base, generator: torch.Generator) -> Network:
    """Make the network that the settings ask for and attach it to the base, fresh or with the weights of network_weights.

    Raises UserError if the settings or the file do not fit the base.
    """
    parts = {"unet": config.train_unet, "text_encoder": config.train_text_encoder}
    start = _read(Path(config.network_weights).expanduser()) if config.network_weights else {}
    wide = needs_convolutions(config) or config.dim_from_weights
    targets = [target for target in (all_targets(model) if wide else model.targets()) if parts[target.part]]
    if start:
        check_family(start, targets, config.network_weights)
    if config.dim_from_weights:
        network = _like_file(config, targets, start)
    else:
        network = fresh_network(config, targets, generator)
        if start:
            _take(network, start, config.network_weights)
    ratios = {"unet": config.loraplus_unet_lr_ratio, "text_encoder": config.loraplus_text_encoder_lr_ratio}
    network.plus = {part: config.loraplus_lr_ratio if own is None else own for part, own in ratios.items()}
    return network


def fresh_network(config: NetworkConfig, targets: Sequence[Target], generator: torch.Generator) -> Network:
    """Attach what the settings ask for to the targets, all of it at its start."""
    layer_class = load_object(ADAPTERS[config.network_algo].layer)
    plans, options, network = plan_layers(config, targets), (config.network_algo, algo_arguments(config)), Network()
    for target in targets:
        if plan := plans.get(target.name):
            network.attach(target, layer_class.fresh(target.module, plan, _dropouts(config), generator, options), plan)
    return network


def _like_file(config: NetworkConfig, targets: Sequence[Target], start: Mapping[str, Tensor]) -> Network:
    """Build the file's own network; blocks and patterns still say the rates."""
    plans = plan_layers(config, targets)
    _refuse_extra([target.name for target in targets], start, config.network_weights)
    network = Network.from_state(targets, start)
    for name, layer in network.layers.items():
        network.set_plan(name, plans.get(name, LayerPlan(0, 0.0)))
        layer.dropouts = _dropouts(config)  # type: ignore[assignment]
    return network


def _dropouts(config: NetworkConfig) -> Dropouts:
    return Dropouts(config.network_dropout, config.rank_dropout, config.module_dropout)


def _take(network: Network, start: Mapping[str, Tensor], path: str) -> None:
    """Let layers begin with what a file holds; those that it lacks begin fresh."""
    _refuse_extra(list(network.layers), start, path)
    try:
        network.load({**{key: t for key, t in network.state().items() if key.partition(".")[0] not in by_layer(start)}, **start})
    except UserError as error:
        raise UserError(f"{path} does not fit these settings: {error}; or set dim_from_weights = true to take its own ranks") from None


def _refuse_extra(names: Sequence[str], start: Mapping[str, Tensor], path: str) -> None:
    """A layer that is in the file and is not trained would be lost in the result, and nobody would know."""
    extra = [name for name in by_layer(start) if name not in set(names)]
    if extra:
        raise UserError(
            f"{path} holds {len(extra)} layers that these settings do not train ({extra[0]} first); train both parts, set conv_dim if it has "
            "convolutions, or merge it into the base with base_weights"
        )


def merge_base_weights(config: NetworkConfig, model: Base) -> list[str]:
    """Add the LoRAs of base_weights to the base's own weights, in place; returns a line about each. Raises UserError if one does not fit."""
    lines = []
    for path, strength in merge_strengths(config) if config.base_weights else ():
        state, targets = _read(path), all_targets(model)
        check_family(state, targets, str(path))
        count = merge(state, targets, strength)
        lines.append(f"{path} is merged into the base: {count} layers, times {strength:g}")
    return lines


@torch.no_grad()
def merge(state: Mapping[str, Tensor], targets: Sequence[Target], strength: float) -> int:
    """Add a LoRA's updates to the weights of the layers it holds, and return how many these are."""
    network = Network.from_state(targets, {key: tensor.float() for key, tensor in state.items()})
    network.remove()
    modules = {target.name: target.module for target in targets}
    for name, layer in network.layers.items():
        module: Any = modules[name]
        weight = module.weight
        # In float64: adding to half-precision weights rounds once, not at each step.
        weight.copy_((weight.double() + strength * layer.weight_update().double()).to(weight.dtype))  # type: ignore[operator]
    return len(network.layers)


def _read(path: Path) -> dict[str, Tensor]:
    from train.export import read_lora

    state = read_lora(path)[0]
    broken = [key for key, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"{path} holds {len(broken)} weights that are not finite numbers ({broken[0]} first); give a LoRA that is whole")
    return state
