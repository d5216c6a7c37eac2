"""The settings of the memory ladder: how the frozen base is held, and who chooses."""

from __future__ import annotations

from dataclasses import dataclass

from prep.options import option

PRECISIONS = ("auto", "fp8", "int8", "nf4")


@dataclass(frozen=True)
class MemoryConfig:
    """How the frozen base is held while a LoRA trains."""

    base_precision: str = option(
        "auto", help="Type of the base's frozen layers; auto is that of the computation, fp8 and int8 are 8 bits, nf4 is 4.", choices=PRECISIONS
    )
    blocks_to_swap: int = option(0, help="Blocks of the UNet whose frozen weights wait in the CPU's memory, the largest first; 0 swaps none.", min=0)
    fit: bool = option(False, help="Predict the memory of a step and hold the run in the lightest way that fits; on a shortage go a rung lower.")
    memory_limit: str = option("", help='Memory that fit may count on, such as "6GB"; empty is what the device has free.')
