"""Spilling: what does not fit is moved to a slower memory without an error, and steps take many times as long.

On Windows, and so under WSL, NVIDIA's driver lets a GPU's memory overflow into the computer's. On Linux a process's pages go to the swap file.
The watch asks driver and kernel for numbers that they keep anyway; nothing waits for the device.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SECONDS = 10.0  # between two looks; steps that spill are longer, so each of them is looked at
# Windows keeps some of a card for itself: what torch holds beyond all but this lies elsewhere. So it does where the card has less than this left.
KEPT, LEAST = 400 * 2**20, 32 * 2**20
SWAPPED = 256 * 2**20  # bytes of the process that may go to the swap file: its idle beginnings do


def driver_spills() -> bool:
    """Say whether this system's driver moves what a card cannot hold to the computer's memory."""
    return platform.system() == "Windows" or "microsoft" in platform.release().lower()  # WSL's kernel


def card_overflows(reserved: int, free: int, total: int) -> bool:
    """Say whether a card of `total` bytes with `free` left cannot hold the bytes that torch has reserved on it."""
    return reserved > total - KEPT or free < LEAST


def swapped_bytes(status: str) -> int:
    """Read how much of a process lies in the swap file from /proc/PID/status; 0 if it does not say."""
    found = re.search(r"^VmSwap:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def read_status() -> str:
    """Return /proc/self/status, nothing where there is none."""
    try:
        return Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # Windows, macOS
        return ""


@dataclass
class SpillWatch:
    """Looks now and then whether a run on a device spills."""

    device: torch.device
    clock: Callable[[], float] = time.monotonic
    status: Callable[[], str] = read_status
    looked: float = -SECONDS
    before: int = field(init=False)  # bytes in the swap file when the run began, or after the last that was found
    told: bool = False  # that nothing can be done by the run itself

    def __post_init__(self) -> None:
        self.before = swapped_bytes(self.status())

    def look(self) -> str:
        """Say what spills, beginning a sentence; "" if nothing does or it is not yet time to look."""
        if self.told or self.clock() - self.looked < SECONDS:
            return ""
        self.looked = self.clock()
        if self.device.type == "cuda":
            return self._card() if driver_spills() else ""
        return self._process() if self.device.type == "cpu" else ""

    def _card(self) -> str:
        import torch

        free, total = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_reserved(self.device)
        if not card_overflows(reserved, free, total):
            return ""
        return f"the GPU's {total / 1e9:.3g} GB are full, and its driver moves the rest to the computer's memory, which makes steps many times slower"

    def _process(self) -> str:
        swapped = swapped_bytes(self.status())
        if swapped - self.before < SWAPPED:
            return ""
        self.before = swapped
        return f"{swapped / 1e9:.3g} GB of this run lie in the swap file, which makes steps many times slower"
