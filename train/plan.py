"""The plan of a run: which pictures are trained when, how often, and with which others; a pure function of tree, settings and seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prep.options import UserError
from train.buckets import Size

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.pictures import Picture


@dataclass(frozen=True)
class SamplePlan:
    """Which picture is trained when: per bucket, training samples and a fixed quota of regularization samples in turn."""

    train: dict[Size, list[int]]  # bucket -> indices, each as often as its folder repeats it
    reg: dict[Size, list[int]]  # bucket -> indices in the order in which the epochs go through them, round and round
    quota: dict[Size, int]  # bucket -> regularization samples an epoch
    batch_size: int
    seed: int

    @classmethod
    def make(cls, pictures: Sequence[Picture], config: TrainConfig, held: Collection[int] = ()) -> SamplePlan:
        """Plan as many regularization samples as training samples, if there are any pictures for them; the indices `held` are not trained.

        Paired use goes on in each epoch where the last one ended, so that in time all are seen. sd-scripts' use takes the same in each.
        """
        times = {index: 0 if index in held else picture.folder.repeats for index, picture in enumerate(pictures)}
        reg_indices = [index for index, picture in enumerate(pictures) if picture.folder.is_reg and index not in held]
        total = sum(times.values()) - sum(times[index] for index in reg_indices)
        if not total:
            raise UserError(f"{config.data.tree} holds no training pictures; put them under img/N_concept, as `prep build` does")
        as_peers = config.data.reg_use == "sd-scripts"
        if as_peers:
            times |= dict(zip(reg_indices, registered([times[index] for index in reg_indices], total), strict=True))
        train: dict[Size, list[int]] = defaultdict(list)
        reg: dict[Size, list[int]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            if times[index]:
                (reg if picture.folder.is_reg else train)[picture.bucket] += [index] * times[index]
        rng = random.Random(f"{config.output.seed}/reg")
        orders = {size: rng.sample(reg[size], len(reg[size])) for size in sorted(reg)}
        sizes = {size: len(order) for size, order in orders.items()}
        quota = sizes if as_peers else apportion(total, sizes)
        return cls(dict(train), orders, quota, config.data.train_batch_size, config.output.seed)

    @property
    def batches_per_epoch(self) -> int:
        """The same for every epoch: what changes from one to the next is which pictures, not how many of a size."""
        return sum(-(-self._count(size) // self.batch_size) for size in self._sizes())

    def _sizes(self) -> list[Size]:
        return sorted(size for size in {*self.train, *self.reg} if self._count(size))

    def _count(self, size: Size) -> int:
        return len(self.train.get(size, ())) + self.quota.get(size, 0)

    def _reg_of(self, size: Size, epoch: int) -> list[int]:
        pool, quota = self.reg.get(size, []), self.quota.get(size, 0)
        return [pool[n % len(pool)] for n in range(epoch * quota, (epoch + 1) * quota)]

    def batches(self, epoch: int) -> list[list[int]]:
        """List the epoch's batches as indices of pictures; none mixes sizes, and in each the two kinds take turns."""
        rng = random.Random(f"{self.seed}/{epoch}")
        queues, order = {}, []
        for size in self._sizes():
            train = self.train.get(size, [])
            samples = take_turns(rng.sample(train, len(train)), self._reg_of(size, epoch))
            queues[size] = iter([samples[i : i + self.batch_size] for i in range(0, len(samples), self.batch_size)])
            order += [size] * -(-len(samples) // self.batch_size)
        # Shuffle which bucket comes when, not the batches of a bucket: with batch size 1 the two kinds still take turns.
        rng.shuffle(order)
        return [next(queues[size]) for size in order]

    def used(self, epochs: int) -> list[int]:
        """List the pictures that so many epochs touch; of a surplus of regularization pictures the rest need no encoding."""
        return sorted({index for indices in self.train.values() for index in indices} | self.reg_used(epochs))

    def reg_used(self, epochs: int) -> set[int]:
        """Return the regularization pictures that so many epochs touch."""
        return {index for size, pool in self.reg.items() for index in pool[: self.quota[size] * epochs]}


def describe_reg(plan: SamplePlan, pictures: int, epochs: int, reg_use: str) -> str:
    """Say in a sentence how many of so many regularization pictures will be used; nothing if there are none."""
    first, used = len(plan.reg_used(1)), len(plan.reg_used(epochs))
    shown = sum(plan.quota.values())
    if not pictures:
        return ""
    if first == pictures:
        often = "once each" if shown == pictures else f"{shown / pictures:.3g} times each on average"
        return f"all {pictures} regularization pictures are used in an epoch, {often}"
    if reg_use == "sd-scripts":
        return (
            f"{first} of your {pictures} regularization pictures will be used, the first in order, as sd-scripts does; set reg_use = paired for all"
        )
    if used == pictures:
        return f"{first} of your {pictures} regularization pictures are used in an epoch, others in the next, and all of them in {epochs}"
    return f"{used} of your {pictures} regularization pictures will be used, {first} in an epoch and others in the next; more epochs would use more"


def registered(repeats: Sequence[int], wanted: int) -> list[int]:
    """Say how often sd-scripts uses each regularization picture in an epoch, given their folders' repeats in the order of their paths.

    It takes them in order until it has as many samples as there are training samples, and never sees the rest; with too few, each is used
    once more in turn until the numbers are equal (train_util.py, DreamBoothDataset).
    """
    times = [0] * len(repeats)
    for index, own in enumerate(repeats):
        if wanted <= 0:
            break
        times[index] = own
        wanted -= own
    if repeats and wanted > 0:
        times = [own + wanted // len(repeats) + (index < wanted % len(repeats)) for index, own in enumerate(times)]
    return times


def take_turns(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Merge two lists evenly, each in its own order: equal ones alternate, a shorter one is spread over the longer."""
    placed = [((i + 0.5) / len(items), kind, item) for kind, items in enumerate((first, second)) for i, item in enumerate(items)]
    return [item for _, _, item in sorted(placed, key=lambda entry: entry[:2])]


def apportion(total: int, sizes: dict[Size, int]) -> dict[Size, int]:
    """Share out `total` in proportion to `sizes`, in whole numbers, the largest remainders first."""
    whole = sum(sizes.values())
    shares = {key: total * size // whole for key, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda key: (-(total * sizes[key] % whole), key))
    for key in by_remainder[: total - sum(shares.values()) if sizes else 0]:
        shares[key] += 1
    return shares
