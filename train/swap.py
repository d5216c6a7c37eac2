"""Blocks of the UNet whose frozen weights wait in the CPU's memory and are on the device only around their use.

The device has SLOTS buffers, each as large as the largest swapped block, and a block's weights are views into the buffer that holds it.
A layer asks for its block when it computes, forward or backward (train/stored.py), so the order is found and not planned: gradient
checkpointing, validation and sampling need nothing of their own. While a block computes, the one after it in the present direction is
copied into the other buffer, on a CUDA device from pinned memory and on a stream of its own. Weights are frozen, so nothing is copied
back. What is trained stays on the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prep.options import UserError
from train.stored import layers_of, store

if TYPE_CHECKING:
    from torch import nn

SLOTS = 2  # the block in use and the next one
ALIGNED = 256  # bytes that a weight's place in a buffer is a multiple of, as CUDA's own allocator has it


@dataclass
class Slot:
    """A buffer on the device and what it holds."""

    buffer: Tensor  # (bytes,) uint8
    held: Block | None = None
    ready: Any = None  # the CUDA event after which the copy is there


@dataclass(eq=False)
class Block:
    """One block's layers, and their weights at home."""

    name: str
    layers: list[Any]
    number: int = 0  # its place among the swapped ones, in the order of the forward pass
    places: list[tuple[int, int, torch.dtype, torch.Size]] = field(default_factory=list)  # of each layer's weight: offset, bytes, type, shape
    home: Tensor | None = None  # (bytes,) uint8, pinned where a GPU is to read it
    slot: Slot | None = None
    swap: Swap | None = None

    @property
    def size(self) -> int:
        """Bytes that the block takes in a buffer."""
        return sum(math.ceil(layer.weight.nbytes / ALIGNED) * ALIGNED for layer in self.layers)

    def need(self) -> None:
        """Have the weights on the device before what is computed next."""
        assert self.swap
        self.swap.need(self)

    def lie_in(self, flat: Tensor) -> None:
        """Let the layers' weights be views into a buffer."""
        for layer, (offset, size, dtype, shape) in zip(self.layers, self.places, strict=True):
            layer.weight.data = flat[offset : offset + size].view(dtype).view(shape)

    def go_home(self, pinned: bool) -> None:
        """Gather the weights, wherever they are, into one buffer in the CPU's memory."""
        self.home = torch.empty(self.size, dtype=torch.uint8, pin_memory=pinned)
        offset, self.places = 0, []
        for layer in self.layers:
            weight = layer.weight.detach()
            self.places.append((offset, weight.nbytes, weight.dtype, weight.shape))
            self.home[offset : offset + weight.nbytes].view(weight.dtype).view(weight.shape).copy_(weight)
            offset += math.ceil(weight.nbytes / ALIGNED) * ALIGNED
        self.lie_in(self.home)


def blocks_of(unet: Any) -> list[Block]:
    """List what can be swapped in the order of the forward pass: a residual block with the transformer behind it, the middle as one.

    What changes the size goes with the last of its level. SD 1.x and 2.x have 21, SDXL has 16.
    """
    found: list[tuple[str, list[nn.Module]]] = []
    for side in ("down_blocks", "up_blocks"):
        if side == "up_blocks":
            found.append(("mid_block", [unet.mid_block]))
        for i, level in enumerate(getattr(unet, side)):
            attentions, count = list(getattr(level, "attentions", None) or ()), len(level.resnets)
            for j, resnet in enumerate(level.resnets):
                ends = [*(getattr(level, "downsamplers", None) or ()), *(getattr(level, "upsamplers", None) or ())] if j == count - 1 else []
                found.append((f"{side}.{i}.{j}", [resnet, *attentions[j : j + 1], *ends]))
    return [Block(name, [layer for part in parts for _, layer in layers_of(part)]) for name, parts in found]


def chosen(unet: Any, count: int) -> list[Block]:
    """Return the largest blocks, in the order of the forward pass; raises UserError if the UNet has not as many."""
    blocks = blocks_of(unet)
    if count > len(blocks):
        raise UserError(f"blocks_to_swap = {count}, but the UNet has {len(blocks)} blocks; give {len(blocks)} or fewer")
    largest = set(sorted(range(len(blocks)), key=lambda i: -blocks[i].size)[:count])
    return [block for i, block in enumerate(blocks) if i in largest]


def pool_bytes(sizes: Sequence[int]) -> int:
    """Return the bytes on the device that swapped blocks of these sizes take together."""
    return min(SLOTS, len(sizes)) * max(sizes, default=0)


class Swap:
    """The swapped blocks of one UNet and the buffers that they take turns in."""

    def __init__(self, blocks: Sequence[Block], device: torch.device) -> None:
        self.blocks = list(blocks)
        self.stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        for number, block in enumerate(self.blocks):
            block.number, block.swap = number, self
            for layer in block.layers:
                store(layer)
            block.go_home(pinned=self.stream is not None)
            for layer in block.layers:
                layer.block = block
                if layer.scale is not None:
                    layer.scale = layer.scale.to(device)
        size = max((block.size for block in self.blocks), default=0)
        self.slots = [Slot(torch.empty(size, dtype=torch.uint8, device=device)) for _ in range(min(SLOTS, len(self.blocks)))]
        self.last: Block | None = None
        self.step = 1  # 1 forwards, -1 backwards

    def resident(self) -> list[str]:
        """Name the blocks that are on the device."""
        return [slot.held.name for slot in self.slots if slot.held]

    def need(self, block: Block) -> None:
        """Have a block on the device, and begin to copy the one that comes after it."""
        if block is self.last:
            return
        if self.last is not None:
            self.step = 1 if block.number > self.last.number else -1
        if block.number == 0:
            self.step = 1  # nothing lies below: the next forward pass goes up from here
        self.last = block
        slot = block.slot or self._fetch(block)
        if self.stream is not None:
            torch.cuda.current_stream(slot.buffer.device).wait_event(slot.ready)
        following = block.number + self.step
        if following == len(self.blocks):
            following = block.number - 1  # the end of a forward pass is where the backward pass begins
        if 0 <= following < len(self.blocks) and self.blocks[following].slot is None:
            self._fetch(self.blocks[following])

    def _fetch(self, block: Block) -> Slot:
        """Copy a block into a buffer that is not in use; what was there goes home."""
        assert block.home is not None
        slot = next((slot for slot in self.slots if slot.held is None), None) or next(s for s in self.slots if s.held is not self.last)
        if slot.held is not None:
            slot.held.slot = None
            assert slot.held.home is not None
            slot.held.lie_in(slot.held.home)
        slot.held, block.slot = block, slot
        target = slot.buffer[: len(block.home)]
        if self.stream is None:
            target.copy_(block.home)
        else:
            # All that is asked of the device so far may still read the buffer.
            self.stream.wait_stream(torch.cuda.current_stream(target.device))
            with torch.cuda.stream(self.stream):
                target.copy_(block.home, non_blocking=True)
                slot.ready = torch.cuda.Event()
                slot.ready.record(self.stream)
        block.lie_in(target)
        return slot

    def end(self) -> None:
        """Let all weights lie at home as they are, no longer swapped; the buffers are free then."""
        if self.stream is not None and self.slots:  # a copy may be under way into a buffer that goes now
            torch.cuda.current_stream(self.slots[0].buffer.device).wait_stream(self.stream)
        for block in self.blocks:
            assert block.home is not None
            block.lie_in(block.home)
            block.slot = None
            for layer in block.layers:
                layer.block = None
        self.blocks, self.slots, self.last = [], [], None
