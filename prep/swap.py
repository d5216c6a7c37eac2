"""Swap: two folders change places in one step of the file system, so that a kill finds the old one or the new one, never neither."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

AT_FDCWD = -100  # paths are from the current folder (linux/fcntl.h)
EXCHANGE = 2  # RENAME_EXCHANGE in linux/fs.h, and RENAME_SWAP in sys/stdio.h of macOS


def _linux(library: ctypes.CDLL, one: bytes, two: bytes) -> int:
    return int(library.renameat2(AT_FDCWD, one, AT_FDCWD, two, EXCHANGE))


def _macos(library: ctypes.CDLL, one: bytes, two: bytes) -> int:
    return int(library.renamex_np(one, two, EXCHANGE))


# Systems whose C library can do it: renameat2(2) since glibc 2.28, renamex_np(2) since macOS 10.12.
CALLS: dict[str, Callable[[ctypes.CDLL, bytes, bytes], int]] = {"linux": _linux, "darwin": _macos}


def exchange(one: Path, two: Path) -> bool:
    """Let two folders of one file system change places; False if this system or file system cannot, and nothing was done."""
    call = CALLS.get(sys.platform)
    if call is None:
        return False
    try:
        return call(ctypes.CDLL(None), os.fsencode(one), os.fsencode(two)) == 0
    except (AttributeError, OSError):  # a C library without the call
        return False


def link(source: str | Path, target: str | Path) -> bool:
    """Give a file a second name (a hard link); False where the file system has none, and nothing was done."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        return False
    return True
