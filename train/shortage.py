"""Memory that ran out: told in one sentence, what was being done and what to do about it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from prep.options import UserError

T = TypeVar("T")
# What torch's other errors for want of memory say: on Apple GPUs and processors, and by cuBLAS and cuDNN.
WORDS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


class ShortError(UserError):
    """There was no memory; `place` says where, and `stepped` that it was while weights were changed, so that they are of no step."""

    def __init__(self, place: str, advice: str, stepped: bool = False) -> None:
        super().__init__(f"out of memory {place}; {advice}")
        self.place, self.stepped = place, stepped


def is_shortage(error: BaseException) -> bool:
    """Say whether an error means that there was no memory."""
    import torch

    if isinstance(error, (ShortError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


@contextmanager
def placed(place: str, advice: str, stepped: bool = False) -> Iterator[None]:
    """Raise ShortError, with this place, for want of memory in the block."""
    try:
        yield
    except (RuntimeError, ShortError) as error:
        if not is_shortage(error):
            raise
        raise ShortError(place, advice, stepped) from error


def tried_twice(action: Callable[[], T], place: str, advice: str) -> T:
    """Do something; if there is no memory, do it again once the gaps in torch's own are given back. Raises ShortError."""
    try:
        return action()
    except RuntimeError as error:
        if not is_shortage(error):
            raise
    empty_caches()
    with placed(place, advice):
        return action()


def empty_caches() -> None:
    """Give the device what no tensor takes of the memory that torch holds."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA was not used
