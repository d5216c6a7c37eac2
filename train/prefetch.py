"""Work that threads do ahead of its use: batches are read while a step computes, pictures are decoded while others are encoded.

What comes out, and in which order, is what one thread would give.
"""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

DECODERS = 4  # threads that decode pictures; Pillow lets others run meanwhile
END: Any = object()


def mapped(function: Callable[[T], R], items: Iterable[T], threads: int = DECODERS, waiting: int = 2 * DECODERS) -> Generator[R, None, None]:
    """Yield `function` of each item in order, at most `waiting` of them begun and not yet yielded.

    An error is raised where its item would have come. The threads have ended when the iterator is exhausted, fails or is closed.
    """
    left = iter(items)
    with ThreadPoolExecutor(threads, "ahead") as pool:
        begun = deque(pool.submit(function, item) for item in itertools.islice(left, waiting))
        try:
            while begun:
                found = begun.popleft().result()
                begun.extend(pool.submit(function, item) for item in itertools.islice(left, 1))
                yield found
        finally:
            for future in begun:
                future.cancel()


def decoded(function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Yield what `mapped` does of a function that decodes pictures."""
    with warnings.catch_warnings():  # a decoder silences warnings for all threads; out of step with others it may leave them so
        yield from mapped(function, items)


def ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield items as they are, each made by a thread of its own while the one before is in use."""
    left = iter(items)
    with closing(mapped(lambda _: next(left, END), itertools.repeat(None), threads=1, waiting=1)) as found:
        for item in found:
            if item is END:
                return
            yield item
