"""What a run keeps in memory and where: the frozen base in its place and type, and what is computed again instead of kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prep.options import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from train.config import TrainConfig
    from train.families.sd import Model
    from train.memory_config import MemoryConfig
    from train.runtime import Runtime


def make_room(config: TrainConfig, runtime: Runtime, model: Model, encoders_run: bool, further: bool = False) -> None:
    """Bring what a step needs to the device, in the type and place that the settings say, and the rest off it.

    `encoders_run` says that captions are encoded in each step. A model that was placed before may be placed again, in the same precision, or with
    `further` in fewer bits.
    """
    leave_device(model, encoders_run)
    if config.network.full:  # whose weights stay in float32, the frozen ones too: all are saved
        model.unet.to(runtime.device)
    else:
        parts = placed_parts(model, encoders_run)
        hold_base(config.memory, runtime, model, parts[1:], further=further)
        runtime.place(*parts)
    if config.output.gradient_checkpointing:
        checkpoint_gradients(model, config.network.train_text_encoder)


def leave_device(model: Model, encoders_run: bool) -> None:
    """Move off the device what no step needs: the VAE, and text encoders unless captions are encoded in each step."""
    for part in (model.vae, *(() if encoders_run else model.text_encoders)):
        part.to("cpu")


def placed_parts(model: Model, encoders_run: bool) -> list[Any]:
    """List the parts that a step runs through, the UNet first."""
    return [model.unet, *(model.text_encoders if encoders_run else ())]


def hold_base(
    memory: MemoryConfig, runtime: Runtime, model: Model, running: list[Any], device: torch.device | None = None, further: bool = False
) -> None:
    """Store the frozen layers of the UNet's blocks and of the text encoders that run in fewer bits, and let blocks wait in the CPU's memory.

    The first and last convolution and what encodes the timestep stay as they are: they are small, and errors in them reach all others.
    `device` is where the layers are, if not where the run computes. `further` lets a base that is held in 8 bits be rounded to fewer.
    Raises UserError if the device has no such type, or the base is held otherwise already.
    """
    from train.precisions import can_follow
    from train.stored import store
    from train.swap import Swap, blocks_of, chosen

    kind = "" if memory.base_precision == "auto" else memory.base_precision
    if kind == "fp8" and runtime.device.type == "mps":
        raise UserError('base_precision = "fp8", but Apple GPUs have no such type; set it to "int8"')
    layers = [layer for block in blocks_of(model.unet) for layer in block.layers]
    layers += [layer for encoder in running for layer in encoder_layers(encoder)]
    before = held_in(model)
    if not (can_follow(before, kind) if further else before in ("", kind)):
        raise UserError(f'the base is held in {before} already, and what follows wants "{memory.base_precision}"; give it a run of its own')
    if model.swap is not None:
        model.swap.end()
        model.swap = None
    swapped = chosen(model.unet, memory.blocks_to_swap)
    waiting = {id(layer) for block in swapped for layer in block.layers}
    for layer in layers:
        if kind:
            store(layer, kind, device or runtime.device)
        if id(layer) in waiting:
            layer.weight.data = layer.weight.data.to("cpu", runtime.dtype if layer.weight.is_floating_point() else None)
    if swapped:
        model.swap = Swap(swapped, runtime.device)


def held_in(model: Model) -> str:
    """Say in which precision the base is held, "" if as it was loaded."""
    from train.stored import Stored

    return next((layer.kind for layer in model.unet.modules() if isinstance(layer, Stored) and layer.kind), "")


def check_network(network: Any, memory: MemoryConfig) -> None:
    """Raise UserError if a network that a file described computes with weights of the base that are not at hand."""
    from train.adapters import ADAPTERS, kind_of

    if memory.base_precision == "auto" and not memory.blocks_to_swap:
        return
    kinds = {kind_of(f".{suffix}" for suffix in layer.tensors()) for layer in network.layers.values()}
    if reading := sorted(kind for kind in kinds if kind and ADAPTERS[kind].reads_base):
        raise UserError(
            f"network_weights holds {reading[0]}, which computes with the base's own weights; leave base_precision and blocks_to_swap away"
        )


def encoder_layers(encoder: nn.Module) -> list[Any]:
    """List the layers of a text encoder that can be stored."""
    from train.stored import layers_of

    return [layer for _, layer in layers_of(encoder)]


def checkpoint_gradients(model: Model, text_encoders: bool) -> None:
    """Let the UNet, and text encoders that learn, keep only the inputs of their blocks and compute the rest again in the backward pass.

    See arxiv.org/abs/1604.06174. What is computed again is the same, dropout too, since an adapter draws its own from a seed.
    """
    from train.modules.blocks import Recomputed

    for part in (model.unet, *(model.text_encoders if text_encoders else ())):
        for module in part.modules():
            if isinstance(module, Recomputed):
                module.recompute = True
