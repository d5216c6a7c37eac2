"""Which pictures are held out of training to judge it by: a seeded share, whole groups of one source or of near-equal looks together."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prep.tree import read_manifest

if TYPE_CHECKING:
    from train.config import ValidationConfig
    from train.pictures import Picture

FEWEST = 20  # training pictures; of fewer none can be spared, and validation_folds judges by rotation
MOST = 32  # pictures that are held out of either kind: the band hardly narrows beyond, while each validation takes longer
# Mean difference of two 8 x 8 thumbnails (0..255) up to which one is a copy of the other. Measured on 60 drawings of one character: copies that are
# resized, re-compressed or mirrored differ by at most 2.3, the nearest of other pictures by 1.7, most by over 3.4; a few too many do no harm.
SAME_LOOK = 2.5
SIDE = 8  # of a thumbnail


@dataclass(frozen=True)
class Holdout:
    """The pictures that judge a run, by their index: none of them is trained."""

    training: tuple[int, ...] = ()  # of the concept
    reg: tuple[int, ...] = ()  # of its class

    @property
    def all(self) -> frozenset[int]:
        return frozenset((*self.training, *self.reg))


def hold_out(pictures: Sequence[Picture], config: ValidationConfig, seed: int, sources: Mapping[Path, str], fold: int | None = None) -> Holdout:
    """Choose the pictures that judge a run; the same for the same pictures, settings and seed.

    `sources` says of a picture which original it was made of. `fold` is the number of a part when sets are rotated: every group is in one.
    """
    training = [index for index, picture in enumerate(pictures) if not picture.folder.is_reg]
    reg = [index for index, picture in enumerate(pictures) if picture.folder.is_reg]
    if fold is not None:
        groups = shuffled(groups_of(pictures, training, sources), seed)
        if len(groups) < 2:
            return Holdout()
        return Holdout(tuple(sorted(index for group in groups[fold :: config.validation_folds] for index in group)))
    if not config.validation_split or config.validation_folds:
        return Holdout()
    held = _share(pictures, training, config.validation_split, seed, sources)
    return Holdout(held, _share(pictures, reg, config.validation_split, seed, sources)) if held else Holdout()


def _share(pictures: Sequence[Picture], indices: Sequence[int], split: float, seed: int, sources: Mapping[Path, str]) -> tuple[int, ...]:
    """Take whole groups until the share is reached, passing by those that would take too much."""
    if len(indices) < FEWEST:
        return ()
    wanted, found = min(math.ceil(split * len(indices)), MOST), list[int]()
    for group in shuffled(groups_of(pictures, indices, sources), seed):
        if len(found) < wanted and len(found) + len(group) <= max(2 * wanted, 1):
            found += group
    return tuple(sorted(found))


def shuffled(groups: Sequence[list[int]], seed: int) -> list[list[int]]:
    """Return the groups in an order that the seed alone decides."""
    return random.Random(f"{seed}/holdout").sample(list(groups), len(groups))


def groups_of(pictures: Sequence[Picture], indices: Sequence[int], sources: Mapping[Path, str]) -> list[list[int]]:
    """Put pictures together that tell of one another: made of one original, the same pixels, or near-equal looks, mirrored ones too."""
    leader = {index: index for index in indices}

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = index = leader[leader[index]]
        return index

    by_content: dict[str, int] = {}
    for index in indices:
        for content in filter(None, (pictures[index].digest, sources.get(pictures[index].path, ""))):
            leader[find(index)] = find(by_content.setdefault(content, index))
    for first, second in alike([pictures[index].thumb for index in indices]):
        leader[find(indices[first])] = find(indices[second])
    groups: dict[int, list[int]] = defaultdict(list)
    for index in indices:
        groups[find(index)].append(index)
    return list(groups.values())


def alike(thumbs: Sequence[str]) -> list[tuple[int, int]]:
    """List the pairs of thumbnails (hex of SIDE x SIDE x RGB) that show the same, one perhaps mirrored; each picture's first match only."""
    import numpy as np

    known = [index for index, thumb in enumerate(thumbs) if thumb]
    if len(known) < 2:
        return []
    pixels = np.stack([np.frombuffer(bytes.fromhex(thumbs[index]), np.uint8) for index in known]).astype(np.float32)
    mirrored = pixels.reshape(-1, SIDE, SIDE, 3)[:, :, ::-1].reshape(len(known), -1)
    # A mean is never further apart than the whole, so only pictures of nearly equal brightness need be compared.
    order = np.argsort(pixels.mean(1), kind="stable")
    bright, pairs = pixels.mean(1)[order], []
    for place, first in enumerate(order):
        end = int(np.searchsorted(bright, bright[place] + SAME_LOOK, "right"))
        others = order[place + 1 : end]
        for start in range(0, len(others), 1024):
            part = others[start : start + 1024]
            distance = np.minimum(np.abs(pixels[part] - pixels[first]).mean(1), np.abs(mirrored[part] - pixels[first]).mean(1))
            pairs += [(known[int(first)], known[int(other)]) for other in part[distance <= SAME_LOOK]]
    return pairs


def sources_of(tree: Path) -> dict[Path, str]:
    """Read from the tree's manifest which original each picture was made of; nothing of a tree that `prep build` did not write."""
    files = read_manifest(tree).get("files", {})
    return {tree / name: str(record["source_sha256"]) for name, record in files.items() if isinstance(record, dict) and record.get("source_sha256")}
