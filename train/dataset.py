"""From a training tree to batches: which pictures, in which views, with which captions; all of it reproducible."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.buckets import BucketRule
from train.cache import GIGABYTE, Store, prune
from train.holdout import Holdout, hold_out, sources_of
from train.latents import LatentCache, Wanted
from train.looks import Looks
from train.pictures import Picture, bucket_rule, folder_counts, look_at, tag_frequency
from train.plan import SamplePlan, describe_reg
from train.prefetch import decoded
from train.subsets import folders_of
from train.text_cache import TextCache, tokenized
from train.wording import Moment, all_wordings, vary_caption

if TYPE_CHECKING:
    from torch import Tensor

    from train.config import TrainConfig
    from train.families.sd import Conditioning, Model
    from train.views import View

__all__ = ["Batch", "Picture", "SamplePlan", "TrainingSet", "bucket_rule"]  # prep asks for the middle three here

Track = Callable[[Iterable[Any], str, int], Iterable[Any]]  # passes items through and shows a bar: items, title, total
CACHE = Path(".atelier")  # beside the tree, where a new tree finds what an old one had encoded
LATENTS, TEXT, LOOKS = "latents", "text", "looks.json"  # in it

NONE_HELD = Holdout()
Sample = tuple[Picture, "View"]


@dataclass(frozen=True)
class Batch:
    """Samples of one size: B pictures and what is said of them."""

    latent_mean: Tensor  # (B, 4, h, w), scaled, on the CPU
    latent_std: Tensor  # (B, 4, h, w)
    input_ids: Tensor  # as the model's `tokenize` makes them
    sizes: Tensor  # (B, 6): original height and width, crop top and left, target height and width, in pixels
    weight: Tensor  # (B,) what each sample's loss counts
    captions: list[str]
    seed: int = 0  # of all chance that its step takes: noise, timesteps, dropout
    mask: Tensor | None = None  # (B, 1, h, w) in 0..1, 0 where nothing is learned; None if all of all pictures is
    pictures: list[Path] = field(default_factory=list)
    token_weights: Tensor | None = None  # (B, chunks, 77); None if no token is weighted
    text: Conditioning | None = None  # of the captions, if the text encoder is frozen and they were encoded before


@dataclass(frozen=True)
class TrainingSet:
    """The pictures of a run with their latents; batches are a pure function of tree, settings, seed and epoch."""

    config: TrainConfig
    model: Model
    rule: BucketRule
    pictures: tuple[Picture, ...]
    plan: SamplePlan
    latents: LatentCache
    text: TextCache | None = None  # None: captions are encoded in each step
    pruned: tuple[int, int] = (0, 0)  # files and bytes that went from the cache
    processes: int = 1  # that share the batches of a step
    held: Holdout = NONE_HELD  # which pictures are not trained but judge the run

    @classmethod
    def load(
        cls, config: TrainConfig, model: Model, progress: Track = lambda items, title, total: items, processes: int = 1, fold: int | None = None
    ) -> TrainingSet:
        """Read the tree, find every picture's bucket and encode what the run will use, where the VAE is; raises UserError."""
        data, root, device = config.data, config.data.tree.parent / CACHE, model.vae.device
        on_disk = data.cache_latents_to_disk
        rule, looks = bucket_rule(data, model), Looks.open(root / LOOKS if on_disk else None)
        files = [(path, folder, own) for folder, own in folders_of(data) for path in folder.pictures]
        looked = decoded(lambda file: look_at(*file, rule, looks), files)
        pictures = tuple(progress(looked, "looking at pictures", len(files)))
        looks.save()
        held = hold_out(pictures, config.validation, config.output.seed, sources_of(data.tree), fold)
        plan = SamplePlan.make(pictures, config, held.all)
        used = [pictures[index] for index in sorted({*plan.used(data.num_epochs), *held.all})]
        latents = LatentCache.open(Store(root / LATENTS if on_disk else None), model)
        views = {(picture.digest, view): picture for picture in used for view in picture.all_views()}
        wanted = [Wanted(digest, view, picture.pixels) for (digest, view), picture in views.items()]
        for _ in progress(latents.prepare(wanted), "encoding pictures", len(wanted)):
            pass
        text = _encoded_text(used, Store(root / TEXT if on_disk else None), config, model.to_encode_text(device), progress)
        kept = latents.store.used | (text.store.used if text else set())
        folders = [root / LATENTS, root / TEXT] if on_disk else []
        return cls(config, model, rule, pictures, plan, latents, text, prune(folders, kept, data.cache_max, data.cache_days), processes, held)

    @property
    def batches_per_epoch(self) -> int:
        return self.plan.batches_per_epoch

    @property
    def batches_a_step(self) -> int:
        """Batches that make one step of the optimizer, on all processes together."""
        return self.config.optimizer.gradient_accumulation_steps * self.processes

    @property
    def steps(self) -> int:
        """Steps of the whole run; none reaches over the end of an epoch."""
        return min(self.config.data.num_epochs * -(-self.batches_per_epoch // self.batches_a_step), self.config.data.max_train_steps or 10**9)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[Batch]:
        """Yield the batches of an epoch whose numbers are start, start + every and so on; the others are not made."""
        planned = self.plan.batches(epoch)
        largest = max(map(len, planned))
        for number in range(start, len(planned), every):
            chosen = [self.pictures[index] for index in planned[number]]
            yield self._batch(chosen, largest, random.Random(f"{self.config.output.seed}/{epoch}/{number}"), self._moment(epoch, number))

    def _moment(self, epoch: int, number: int) -> Moment:
        """Say which step a batch is part of."""
        an_epoch = -(-self.batches_per_epoch // self.batches_a_step)
        return Moment(epoch, epoch * an_epoch + number // self.batches_a_step, self.steps)

    def _batch(self, chosen: Sequence[Picture], largest: int, rng: random.Random, moment: Moment) -> Batch:
        import torch

        captions = [vary_caption(picture.caption, picture.settings, rng, moment) for picture in chosen]
        samples = [(picture, _drawn(picture, rng)) for picture in chosen]
        latents = [self.latents.latents(picture.digest, view, picture.pixels) for picture, view in samples]
        sizes = torch.tensor([picture.conditioning_size(view) for picture, view in samples])
        wording = tokenized(captions, self.model, self.config)
        # The step takes a mean over the batch: in a batch cut short, each sample would else count more than its like.
        share = len(chosen) / largest
        prior = self.config.data.prior_loss_weight
        return Batch(
            latent_mean=torch.stack([mean for mean, _ in latents]),
            latent_std=torch.stack([std for _, std in latents]),
            input_ids=wording.input_ids,
            sizes=sizes,
            weight=torch.tensor([share * (prior if picture.folder.is_reg else 1.0) for picture in chosen]),
            captions=captions,
            seed=rng.getrandbits(63),
            mask=self._masks(samples, latents[0][0]),
            pictures=[picture.path for picture in chosen],
            token_weights=wording.weights,
            text=self.text.conditioning(captions, sizes) if self.text else None,
        )

    def _masks(self, samples: Sequence[Sample], like: Tensor) -> Tensor | None:
        """Stack the loss masks of some samples of one size; None if nothing of them is masked."""
        import torch

        if not any(picture.mask for picture, _ in samples):
            return None
        whole = torch.ones_like(like[:1])
        return torch.stack([self.latents.mask(p.mask, view, p.transparency) if p.mask else whole for p, view in samples])

    def notes(self) -> list[str]:
        """Say what a user should know of the data before the first step, a line each."""
        data = self.config.data
        reg = sum(picture.folder.is_reg for picture in self.pictures)
        gone, freed = self.pruned
        made = self.latents.store.made
        text = f", {self.text.store.made} of {len(self.text.store.used)} captions" if self.text else ""
        lines = [
            describe_reg(self.plan, reg, data.num_epochs, data.reg_use),
            f"encoded {made} of {len(self.latents.store.used)} pictures{text}, the rest was there" if made or text else "",
            f"{gone} encoded files that were not used for long are deleted, {freed / GIGABYTE:.3g} GB" if gone else "",
        ]
        return [line for line in lines if line]

    def summary(self) -> dict[str, Any]:
        """Count what the run trains on, in plain types, for the file's metadata and for the table at the end."""
        training = [picture for picture in self.pictures if not picture.folder.is_reg]
        reg = [picture for picture in self.pictures if picture.folder.is_reg]
        epoch = [self.pictures[index] for batch in self.plan.batches(0) for index in batch]
        buckets = Counter(picture.bucket for picture in epoch)
        return {
            "pictures": len(training),
            "train_samples": sum(not picture.folder.is_reg for picture in epoch),
            "reg_pictures": len(reg),
            "reg_samples": sum(picture.folder.is_reg for picture in epoch),
            "reg_unused": len(reg) - len(self.plan.reg_used(self.config.data.num_epochs)),
            "batches_per_epoch": self.batches_per_epoch,
            "processes": self.processes,
            "resolution": list(self.rule.resolution),
            "buckets": [{"size": list(size), "count": buckets[size]} for size in sorted(buckets)],
            "mean_ar_error": sum(abs(picture.fit.ar_error) for picture in epoch) / len(epoch),
            "dataset_dirs": folder_counts(training),
            "reg_dataset_dirs": folder_counts(reg),
            "tag_frequency": tag_frequency(training),
        }


def _drawn(picture: Picture, rng: random.Random) -> View:
    """Draw which view of a picture is shown."""
    flip = picture.settings.flip_aug and rng.random() < 0.5
    return picture.view(rng.randrange(picture.views) if picture.views > 1 else 0, flip)


def _encoded_text(pictures: Iterable[Picture], store: Store, config: TrainConfig, model: Model, progress: Track) -> TextCache | None:
    """Encode all captions that may come up; None if the text encoder learns, or if they are without end."""
    if config.network.train_text_encoder or not config.data.cache_text_encoder_outputs:
        return None
    wordings: set[str] = set()
    for picture in pictures:
        found = all_wordings(picture.caption, picture.settings)
        if found is None:
            return None
        wordings |= found
    cache = TextCache.open(store, model, config)
    for caption in progress(sorted(wordings), "encoding captions", len(wordings)):
        cache.prepare(caption)
    return cache
