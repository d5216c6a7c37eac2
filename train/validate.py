"""The held-out loss: the same pictures, noise and timesteps every time, with and without the keyword, and of the class, each against the base."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from prep.options import load_object
from train.loss import masked_mean
from train.text_cache import tokenized

if TYPE_CHECKING:
    from torch import Tensor

    from train.families.sd import Conditioning
    from train.pictures import Picture
    from train.state import Job, TrainState

SEEN, SEEN_FIELDS = "pipelines.seen:Seen", ("seen_learned", "seen_needs_keyword", "seen_bleed")
STRATA = 8  # timesteps a picture is judged at, one in each equal part of those that are trained
# The noisiest of them, where words decide what is drawn. Measured on 26 LoRAs of benchmarks/judgement.py: what is learned there ranks them as
# the tagger does (Spearman 0.8; over the noisier half 0.7), and a keyword that is bound makes three quarters and more of it (of that, a half).
NOISIEST = 2
# Share of a run's time that judging may take at most unless validate_every_n_epochs says otherwise. A forward pass is a third of a step.
AFFORDED, PASS = 1 / 8, 1 / 3
MOST = 24  # judgements of a run, as many as the curve needs
KEYWORD_WEIGHT = 0.5  # of what needs the keyword, and of what bled, against the loss: together they count as much as it does
# Two-sided 97.5 % quantiles of Student's distribution by degrees of freedom; beyond the last the normal one's.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09)


@dataclass(frozen=True)
class Judgement:
    """What one validation found, as shares of the base's loss at the same noise, averaged over the levels of noise.

    A plain mean would be that of the clean timesteps, whose loss is a hundred times that of the noisy ones, while the keyword acts on these.
    """

    step: int
    epoch: int  # counted from 1, the one that the step belongs to
    loss: float  # of the held-out pictures with their captions
    band: float  # half width of its 95 % interval, over pictures
    learned: float  # what is gone of the base's loss, like all that follows over the noisiest quarter, where the words decide what is drawn
    needs_keyword: float  # of it, what is not gone where the caption lacks the keyword
    bleed: float  # how far predictions for the class moved away from the base's
    # The same three from sample pictures, as a tagger sees them: shares of the way from the base's pictures to the training pictures.
    seen_learned: float = math.nan
    seen_needs_keyword: float = math.nan
    seen_bleed: float = math.nan

    def record(self, best: bool) -> dict[str, Any]:
        """Return it as the log and the report tell it."""
        told = {name: None if math.isnan(value) else value for name, value in asdict(self).items()}
        return {**told, "base": 1.0, "difference": self.loss - 1, "score": score(self), "best": best}


def score(judgement: Judgement) -> float:
    """Return what the best epoch has least of: the held-out loss, less what needs the keyword and more what bled into the class, each by half.

    The loss alone falls before the keyword is bound, since it is lower for all pictures of this kind then.
    """
    return judgement.loss + KEYWORD_WEIGHT * (judgement.bleed - judgement.needs_keyword)


@dataclass
class Panel:
    """The pictures that judge a run, what they are called, and what the base makes of them."""

    job: Job
    concept: list[Picture]
    others: list[Picture]  # of the class; the concept's own without the keyword where there are none
    base: dict[str, Any] = field(default_factory=dict)
    seen: Any = None  # pipelines.seen.Seen, if a tagger looks at sample pictures too

    @classmethod
    def of(cls, job: Job) -> Panel | None:
        """Take the held-out pictures of a run; None if it has none."""
        data = job.data
        concept = [data.pictures[index] for index in data.held.training]
        return cls(job, concept, [data.pictures[index] for index in data.held.reg] or concept) if concept else None

    @property
    def passes(self) -> int:
        """Samples that one judgement puts through the UNet."""
        return STRATA * (2 * len(self.concept) + len(self.others))

    def every(self) -> int:
        """Say after how many epochs to judge, so that it takes but its share of the time."""
        config, batches = self.job.config, self.job.data.batches_per_epoch
        if config.validation.validate_every_n_epochs:
            return config.validation.validate_every_n_epochs
        an_epoch = batches * config.data.train_batch_size
        epochs = min(config.data.num_epochs, math.ceil(self.job.steps * self.job.data.batches_a_step / batches))  # max_train_steps may end it
        return max(1, math.ceil(self.passes * PASS / (AFFORDED * an_epoch)), math.ceil(epochs / MOST))

    def due(self, state: TrainState) -> bool:
        """Say whether the step just taken is to be judged; the last one always is."""
        steps = self.job.config.validation.validate_every_n_steps
        if state.step >= self.job.steps:
            return True
        return state.step % steps == 0 if steps else state.batch == 0 and state.epoch % self.every() == 0

    def judge(self, state: TrainState) -> Judgement:
        """Judge the run as it stands: its result, which may be a running mean of the weights."""
        if not self.base:
            with alone(state):
                self.base = {"keyed": self.losses(self.concept), "bare": self.losses(self.concept, self.bare), "class": self.predictions()}
                if name := self.job.config.validation.validation_tagger:
                    self.seen = load_object(SEEN).of(self.job, self.concept, [self.bare(picture) for picture in self.concept], name)
        with state.result():
            keyed, bare = self.losses(self.concept), self.losses(self.concept, self.bare)
            moved = self.moved()
            seen = dict(zip(SEEN_FIELDS, self.seen.look(), strict=True)) if self.seen else {}
        base = self.base["keyed"].mean(0)
        gained, without = (self.base["keyed"] - keyed) / base, (self.base["bare"] - bare) / base
        return Judgement(
            step=state.step,
            epoch=state.epoch if state.batch == 0 else state.epoch + 1,
            loss=1 - gained.mean().item(),
            band=half_width(gained.mean(1).tolist()),
            learned=noisiest(gained),
            needs_keyword=noisiest(gained - without),
            bleed=noisiest(moved / base),
            **seen,
        )

    def bare(self, picture: Picture) -> str:
        """Return a picture's caption without the keyword."""
        return without_keyword(picture.caption, self.job.config.data.keyword)

    def losses(self, pictures: Sequence[Picture], caption: Any = None) -> Tensor:
        """Return the loss of each picture at each of its timesteps, (P, STRATA) float64; `caption` says what a picture is called."""
        import torch

        name = caption or (lambda picture: picture.caption)
        return torch.stack([losses_of(self.job, picture, name(picture)) for picture in pictures])

    def predictions(self) -> list[Tensor]:
        """Return what is predicted for the class, a tensor (STRATA, C, h, w) for each picture."""
        return [predicted(self.job, picture, self.bare(picture))[0].cpu() for picture in self.others]

    def moved(self) -> Tensor:
        """Return the mean squared distance of predictions for the class from those of the base, at each level of noise, (STRATA,)."""
        import torch

        pairs = zip(self.predictions(), self.base["class"], strict=True)
        return torch.stack([(now - before).double().square().mean(dim=(1, 2, 3)) for now, before in pairs]).mean(0)


def noisiest(values: Tensor) -> float:
    """Return the mean over the noisiest of the timesteps, the last axis of `values`."""
    return values[..., -NOISIEST:].mean().item()


@contextmanager
def alone(state: TrainState) -> Iterator[None]:
    """Let the base compute as if there were no network."""
    before, state.network.multiplier = state.network.multiplier, 0.0
    try:
        yield
    finally:
        state.network.multiplier = before


def losses_of(job: Job, picture: Picture, caption: str) -> Tensor:
    """Return the squared error of a picture at each of its timesteps, (STRATA,) float64 on the CPU, where it is masked only what is shown."""
    prediction, target, mask = predicted(job, picture, caption)
    squared = (prediction - target).double().square()
    return masked_mean(squared, None if mask is None else mask.double(), job.config.objective.normalize_masked_area_loss).cpu()


def predicted(job: Job, picture: Picture, caption: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Predict a picture's noise or velocity at each of its timesteps; returns prediction and target (STRATA, C, h, w), and its loss mask."""
    import torch

    data, shown = job.data, picture.view(0, False)
    mean, _ = data.latents.latents(picture.digest, shown, picture.pixels)
    noise, timesteps = drawn(picture.digest, mean, job)
    latents = mean.expand_as(noise)
    noisy, target = job.schedule.add_noise(latents, noise, timesteps), job.schedule.target(latents, noise, timesteps)
    mask = data.latents.mask(picture.mask, shown, picture.transparency).expand(STRATA, -1, -1, -1) if picture.mask else None
    device, size = job.model.device, max(1, min(STRATA, 2 * job.config.data.train_batch_size))
    with torch.no_grad(), job.runtime.autocast():
        told = _told(job, picture, caption)
        parts = [
            job.model.denoise(noisy[i : i + size].to(device), timesteps[i : i + size].to(device), _repeated(told, len(noisy[i : i + size])))
            for i in range(0, STRATA, size)
        ]
    return torch.cat(parts).float(), target.to(device), None if mask is None else mask.to(device)


def drawn(digest: str, latent: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    """Draw a picture's noise (STRATA, C, h, w) and timesteps (STRATA,), one in each part of the range; they depend on the picture alone."""
    import torch

    rng = random.Random(hashlib.sha256(digest.encode()).digest())
    noise = torch.randn((STRATA, *latent.shape), generator=torch.Generator().manual_seed(rng.getrandbits(63)))
    objective = job.config.objective
    low, high = objective.min_timestep, min(objective.max_timestep or len(job.schedule), len(job.schedule))
    # One offset a picture: together the pictures cover the range evenly, however few they are.
    offset = rng.random()
    return noise, torch.tensor([min(high - 1, int(low + (high - low) * (part + offset) / STRATA)) for part in range(STRATA)])


def _told(job: Job, picture: Picture, caption: str) -> Conditioning:
    import torch

    sizes = torch.tensor([picture.conditioning_size(picture.view(0, False))])
    if job.data.text:
        return job.data.text.conditioning([caption], sizes).to(job.model.device)
    wording = tokenized([caption], job.model, job.config)
    return job.model.conditioning(wording.input_ids, job.config.model.clip_skip, sizes.to(job.model.device), wording.weights)


def _repeated(told: Conditioning, times: int) -> Conditioning:
    """Return the conditioning of one sample for so many."""
    parts = (told.states, told.pooled, told.sizes)
    return type(told)(*(None if part is None else part.expand(times, *part.shape[1:]) for part in parts))  # type: ignore[arg-type]


def without_keyword(caption: str, keyword: str) -> str:
    """Take the keyword out of a caption: as a tag of its own, or as a word of a sentence."""
    if not keyword:
        return caption
    word = re.compile(rf"[ \t]*(?<!\w){re.escape(keyword)}(?:'s)?(?!\w)", re.IGNORECASE)
    parts = [(part, word.sub("", part)) for part in caption.split(",")]
    return ",".join(bare for before, bare in parts if bare.strip() or not before.strip()).strip(" ,")


def half_width(values: Sequence[float]) -> float:
    """Return the half width of the 95 % interval of a mean (Student); infinite for a single value."""
    count = len(values)
    if count < 2:
        return math.inf
    mean = sum(values) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return (STUDENT[count - 2] if count - 2 < len(STUDENT) else 1.96) * deviation / math.sqrt(count)
