"""What a run keeps in memory, and what it computes again instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.families.sd import Model


def checkpoint_gradients(model: Model, text_encoders: bool) -> None:
    """Let the UNet, and text encoders that learn, keep only the inputs of their blocks and compute the rest again in the backward pass.

    See arxiv.org/abs/1604.06174. What is computed again is the same, dropout too, since an adapter draws its own from a seed.
    """
    from train.modules.blocks import Recomputed

    for part in (model.unet, *(model.text_encoders if text_encoders else ())):
        for module in part.modules():
            if isinstance(module, Recomputed):
                module.recompute = True
