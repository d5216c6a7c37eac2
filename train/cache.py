"""Tensors that are made once and kept under a name made from all that they depend on, so that none can be stale."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError, atomic_write

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]

# What a store holds in memory of what lies on the disk. All of a usual set of some hundred pictures fits; of 20,000 the rest is read when
# it is needed. Measured with 20,000 pictures of 512 px: the process grows by 537 MB, and a picture is read in 0.06 ms from files that the
# system has in its own memory, where a step of SD 1.5 takes 300 ms at batch 8 on an RTX 4090 (LyCORIS, docs/Guidelines.md).
RESIDENT = 512 * 2**20  # bytes
SUFFIX = ".safetensors"
NOWHERE = Path(".nowhere")  # the folder of a store that has none: nothing is there
DAY, GIGABYTE = 86_400, 10**9


@dataclass
class Store:
    """Named groups of tensors in the files of a folder or, with no folder, in memory alone."""

    folder: Path | None
    resident: int = RESIDENT
    held: dict[str, Tensors] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    made: int = 0
    holding: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def lacks(self, facts: Iterable[Any]) -> bool:
        """Say whether `prepare` with these facts would have something to make."""
        key = key_of(facts)
        return key not in self.held and not self._path(key).exists()

    def prepare(self, facts: Iterable[Any], make: Callable[[], Tensors]) -> None:
        """See to it that `get` with these facts will have to make nothing; what lies there is marked as used today."""
        key = key_of(facts)
        self.used.add(key)
        if key in self.held:
            return
        try:
            os.utime(self._path(key))
        except FileNotFoundError:
            self._make(key, make)

    def get(self, facts: Iterable[Any], make: Callable[[], Tensors], fits: Callable[[Tensors], bool] = bool) -> Tensors:
        """Return the tensors that `make` makes of what the facts say, from memory, from the disk, or else made now.

        What lies on the disk and does not fit, since somebody put something else there, is made anew.
        """
        key = key_of(facts)
        self.used.add(key)
        found = self.held.get(key)
        if found is None:
            found = self._read(key)
            if found is None or not fits(found):
                return self._make(key, make)
            self._hold(key, found)
        return found

    def path(self, facts: Iterable[Any]) -> Path:
        """Return where the tensors of these facts lie, or would."""
        return self._path(key_of(facts))

    def _path(self, key: str) -> Path:
        return (self.folder or NOWHERE) / key[:2] / f"{key}{SUFFIX}"

    def _make(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        found = make()
        self.made += 1
        if self.folder:
            _write(self._path(key), found)
        self._hold(key, found)
        return found

    def _hold(self, key: str, found: Tensors) -> None:
        """Keep tensors in memory: all of them if they lie nowhere else, else while there is room; the first come stay."""
        size = sum(tensor.nbytes for tensor in found.values())
        with self.holding:  # a thread that reads batches ahead comes here too
            if self.folder is None:
                self.held[key] = found
            elif size <= self.resident and key not in self.held:
                self.resident -= size
                self.held[key] = found

    def _read(self, key: str) -> Tensors | None:
        """Read a file; one that is missing, broken or holds what is not a number is None, and is then made anew."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        if self.folder is None:
            return None
        try:
            found = load(self._path(key).read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None
        return found if all(bool(tensor.isfinite().all()) for tensor in found.values()) else None


def key_of(facts: Iterable[Any]) -> str:
    """Hash facts to a name; they are written out with their types' own `repr`, so that 1, 1.0 and "1" differ."""
    return hashlib.sha256("|".join(map(repr, facts)).encode()).hexdigest()


def prune(folders: Iterable[Path], keep: Collection[str], gigabytes: float, days: int, now: float | None = None) -> tuple[int, int]:
    """Delete what was not used for so many days, then what was used longest ago until the rest takes no more than so many gigabytes.

    0 is no limit. What this run uses (its keys in `keep`) stays in any case. Returns how many files went, and their bytes.
    """
    now = time.time() if now is None else now
    found = sorted((*_facts(path), path) for folder in folders for path in folder.glob(f"??/*{SUFFIX}"))
    total, gone, freed = sum(size for _, size, _ in found), 0, 0
    for used, size, path in found:
        old = bool(days) and used < now - days * DAY
        over = bool(gigabytes) and total - freed > gigabytes * GIGABYTE
        if (old or over) and path.stem not in keep:
            path.unlink(missing_ok=True)  # another run may prune the same folder
            gone, freed = gone + 1, freed + size
    return gone, freed


def hash_modules(modules: Iterable[Any]) -> str:
    """Hash the weights of modules, all of them: that a base was trained a little further must be seen."""
    import torch

    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _facts(path: Path) -> tuple[float, int]:
    """Return when a file was last used and its size; one that is gone already counts for nothing."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0.0, 0
    return stat.st_mtime, stat.st_size


def _write(path: Path, tensors: Tensors) -> None:
    from safetensors.torch import save

    try:
        atomic_write(path, save(dict(tensors)))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); make room, or set cache_latents_to_disk = false to keep it in memory") from error
