"""From a training tree to batches: which pictures, how often, in which order, with which captions; all of it reproducible."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.captions import join, parse, read_caption, shuffle
from prep.images import WHITE, Decoded, PictureError, decode, pixel_hash
from prep.options import UserError
from prep.tree import Folder, read_tree
from train.buckets import BucketRule, Fit, Size
from train.cache import LatentCache, bucket_mask

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from train.config import DataConfig, TrainConfig
    from train.families.sd import Model

Track = Callable[[Iterable[Any], str, int], Iterable[Any]]  # passes items through and shows a bar: items, title, total
CACHE = Path(".atelier") / "latents"  # beside the tree, where a new tree finds what an old one had encoded


@dataclass(frozen=True)
class Picture:
    """A picture of the tree as the run sees it; two in one bucket may share a batch."""

    path: Path
    digest: str  # of its pixels
    fit: Fit
    caption: str
    folder: Folder
    masked: bool = False  # parts of it are transparent, and that is a loss mask
    size: Size = (0, 0)  # width and height before it is scaled

    @property
    def bucket(self) -> Size:
        return self.fit.bucket

    def conditioning_size(self, flip: bool) -> tuple[int, int, int, int, int, int]:
        """Return original height and width, crop top and left in the scaled picture, bucket height and width (SDXL, section 2.2)."""
        left, top, right, _ = self.fit.crop
        return self.size[1], self.size[0], top, self.fit.resized[0] - right if flip else left, self.bucket[1], self.bucket[0]


@dataclass(frozen=True)
class Batch:
    """Samples of one size: B pictures and what is said of them."""

    latent_mean: Tensor  # (B, 4, h, w), scaled, on the CPU
    latent_std: Tensor  # (B, 4, h, w)
    input_ids: Tensor  # as the model's `tokenize` makes them
    sizes: Tensor  # (B, 6): original height and width, crop top and left, target height and width, in pixels
    weight: Tensor  # (B,) what each sample's loss counts
    captions: list[str]
    mask: Tensor | None = None  # (B, 1, h, w) in 0..1, 0 where nothing is learned; None if all of all pictures is
    pictures: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingSet:
    """The pictures of a run with their latents; batches are a pure function of tree, settings, seed and epoch."""

    config: TrainConfig
    model: Model
    rule: BucketRule
    pictures: tuple[Picture, ...]
    plan: SamplePlan
    latents: dict[tuple[int, bool], tuple[Tensor, Tensor]]  # (index in `pictures`, mirrored) -> mean, std
    masks: dict[tuple[int, bool], Tensor] = field(default_factory=dict)  # the same of loss masks, (1, h, w)

    @classmethod
    def load(cls, config: TrainConfig, model: Model, progress: Track = lambda items, title, total: items) -> TrainingSet:
        """Read the tree, find every picture's bucket and encode those that the run will use; raises UserError."""
        data = config.data
        rule = bucket_rule(data, model)
        cache = LatentCache.open(data.tree.parent / CACHE, model)
        files = [(path, folder) for folder in read_tree(data.tree) for path in folder.pictures]
        pictures = tuple(_look_at(path, folder, rule, data.alpha_mask) for path, folder in progress(files, "looking at pictures", len(files)))
        plan = SamplePlan.make(pictures, config)
        wanted = [(i, flip) for i in plan.used(data.num_epochs) for flip in ((False, True) if data.flip_aug else (False,))]
        latents, masks = {}, {}
        for index, flip in progress(wanted, "encoding pictures", len(wanted)):
            picture = pictures[index]
            latents[index, flip] = cache.latents(picture.digest, picture.fit, flip, partial(_pixels, picture.path, data.alpha_mask))
            alpha = _open(picture.path, True).alpha if picture.masked else None
            if alpha is not None:
                masks[index, flip] = bucket_mask(alpha, picture.fit, flip, model.vae_scale)
        return cls(config, model, rule, pictures, plan, latents, masks)

    @property
    def batches_per_epoch(self) -> int:
        return self.plan.batches_per_epoch

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on; those before are not made."""
        planned = self.plan.batches(epoch)
        largest = max(map(len, planned))
        for number in range(start, len(planned)):
            yield self._batch(planned[number], largest, random.Random(f"{self.config.output.seed}/{epoch}/{number}"))

    def _batch(self, indices: Sequence[int], largest: int, rng: random.Random) -> Batch:
        import torch

        data = self.config.data
        chosen = [self.pictures[index] for index in indices]
        captions = [vary_caption(picture.caption, data, rng) for picture in chosen]
        samples = [(index, data.flip_aug and rng.random() < 0.5) for index in indices]
        latents = [self.latents[sample] for sample in samples]
        # The step takes a mean over the batch: in a batch cut short, each sample would else count more than its like.
        share = len(indices) / largest
        return Batch(
            latent_mean=torch.stack([mean for mean, _ in latents]),
            latent_std=torch.stack([std for _, std in latents]),
            input_ids=self.model.tokenize(captions, self.config.model.max_token_length),
            sizes=torch.tensor([self.pictures[index].conditioning_size(flip) for index, flip in samples]),
            weight=torch.tensor([share * (data.prior_loss_weight if picture.folder.is_reg else 1.0) for picture in chosen]),
            captions=captions,
            mask=self._masks(samples),
            pictures=[picture.path for picture in chosen],
        )

    def _masks(self, samples: Sequence[tuple[int, bool]]) -> Tensor | None:
        """Stack the loss masks of some samples of one size; None if nothing of them is masked."""
        import torch

        if not any(sample in self.masks for sample in samples):
            return None
        whole = torch.ones_like(self.latents[samples[0]][0][:1])
        return torch.stack([self.masks.get(sample, whole) for sample in samples])

    def summary(self) -> dict[str, Any]:
        """Count what the run trains on, in plain types, for the file's metadata and for the table at the end."""
        training = [picture for picture in self.pictures if not picture.folder.is_reg]
        reg = [index for index, picture in enumerate(self.pictures) if picture.folder.is_reg]
        used = set(self.plan.used(self.config.data.num_epochs))
        epoch = [self.pictures[index] for batch in self.plan.batches(0) for index in batch]
        buckets = Counter(picture.bucket for picture in epoch)
        folders: dict[Path, Folder] = {picture.folder.path: picture.folder for picture in self.pictures}
        return {
            "pictures": len(training),
            "train_samples": sum(not picture.folder.is_reg for picture in epoch),
            "reg_pictures": len(reg),
            "reg_samples": sum(picture.folder.is_reg for picture in epoch),
            "reg_unused": sum(index not in used for index in reg),
            "batches_per_epoch": self.batches_per_epoch,
            "resolution": list(self.rule.resolution),
            "buckets": [{"size": list(size), "count": buckets[size]} for size in sorted(buckets)],
            "mean_ar_error": sum(abs(picture.fit.ar_error) for picture in epoch) / len(epoch),
            "dataset_dirs": _folder_counts(folder for folder in folders.values() if not folder.is_reg),
            "reg_dataset_dirs": _folder_counts(folder for folder in folders.values() if folder.is_reg),
            "tag_frequency": tag_frequency(training),
        }


@dataclass(frozen=True)
class SamplePlan:
    """Which picture is trained when: per bucket, training samples and a fixed quota of regularization samples in turn."""

    train: dict[Size, list[int]]  # bucket -> indices, each as often as its folder repeats it
    reg: dict[Size, list[int]]  # bucket -> indices in the order in which the epochs go through them, round and round
    quota: dict[Size, int]  # bucket -> regularization samples an epoch
    batch_size: int
    seed: int

    @classmethod
    def make(cls, pictures: Sequence[Picture], config: TrainConfig) -> SamplePlan:
        """Plan as many regularization samples as training samples, if there are any pictures for them."""
        train: dict[Size, list[int]] = defaultdict(list)
        reg: dict[Size, list[int]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            kind = reg if picture.folder.is_reg else train
            kind[picture.bucket] += [index] * picture.folder.repeats
        if not train:
            raise UserError(f"{config.data.tree} holds no training pictures; put them under img/N_concept, as `prep build` does")
        rng = random.Random(f"{config.output.seed}/reg")
        orders = {size: rng.sample(reg[size], len(reg[size])) for size in sorted(reg)}
        quota = apportion(sum(len(found) for found in train.values()), {size: len(order) for size, order in orders.items()})
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
        touched = {index for indices in self.train.values() for index in indices}
        for size, pool in self.reg.items():
            touched |= set(pool[: self.quota[size] * epochs])
        return sorted(touched)


def bucket_rule(data: DataConfig, model: Model) -> BucketRule:
    """Make the run's bucket rule: the settings, and the base model's own resolution unless one is set."""
    side = data.resolution or model.resolution
    if side % model.vae_scale:
        raise UserError(f"resolution is {side}, but this base model takes multiples of {model.vae_scale} pixels; set another resolution")
    limits = (data.min_bucket_reso, data.max_bucket_reso, data.bucket_reso_steps)
    return BucketRule((side, side), *limits, no_upscale=data.bucket_no_upscale, enabled=data.enable_bucket)


def vary_caption(caption: str, data: DataConfig, rng: random.Random) -> str:
    """Drop the whole caption at the set rate, else shuffle its tags behind the first `keep_tokens`."""
    if rng.random() < data.caption_dropout_rate:
        return ""
    return join(shuffle(parse(caption), data.keep_tokens, rng)) if data.shuffle_caption else caption


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


def tag_frequency(pictures: Iterable[Picture]) -> dict[str, dict[str, int]]:
    """Count each folder's tags, lower-cased, once a picture (what the web UIs list as a LoRA's words)."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for picture in pictures:
        counts[picture.folder.path.name].update(tag.lower() for tag in parse(picture.caption))
    return {name: dict(counter.most_common()) for name, counter in sorted(counts.items())}


def _folder_counts(folders: Iterable[Folder]) -> dict[str, dict[str, int]]:
    return {folder.path.name: {"n_repeats": folder.repeats, "img_count": len(folder.pictures)} for folder in folders}


def _look_at(path: Path, folder: Folder, rule: BucketRule, alpha_mask: bool) -> Picture:
    """Read a picture's pixels and caption: its first line, as other trainers do, or the folder's concept if it has none."""
    lines = (read_caption(path) or "").splitlines()
    decoded = _open(path, alpha_mask)
    image, masked = decoded.image, alpha_mask and decoded.alpha is not None
    return Picture(path, pixel_hash(image), rule.fit(*image.size), lines[0].strip() if lines else folder.concept, folder, masked, image.size)


def _pixels(path: Path, alpha_mask: bool) -> Image.Image:
    return _open(path, alpha_mask).image


def _open(path: Path, alpha_mask: bool) -> Decoded:
    """Decode a picture of the tree; the colours under its transparency are kept if that is a loss mask."""
    try:
        return decode(path, None if alpha_mask else WHITE)
    except PictureError as error:
        raise UserError(f"{path} cannot be read ({error}); mend it or take it out of the tree") from None
