"""What a run keeps in memory, and what it computes again instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.families.sd import Model


def checkpoint_gradients(model: Model, text_encoders: bool) -> None:
    """Let the UNet, and text encoders that learn, keep only the inputs of their blocks and compute the rest again in the backward pass.

    See arxiv.org/abs/1604.06174. What is computed again is the same, dropout too, since an adapter draws its own from a seed.
    """
    model.unet.enable_gradient_checkpointing()
    for encoder in model.text_encoders if text_encoders else ():
        _checkpoint_encoder(encoder)


def _checkpoint_encoder(encoder: Any) -> None:
    """Switch on a text encoder's own checkpointing, by the name that the installed transformers has for it."""
    options = {"use_reentrant": False}  # the other kind gives no gradient where the input of a layer has none
    if hasattr(encoder, "activation_checkpointing_enable"):
        encoder.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    for module in encoder.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.training = True  # a layer checkpoints in this mode only; the dropouts in it stay as they are, off
