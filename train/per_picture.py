"""What a run made of each picture: which it never learned, which it knows by heart, where the keyword does not fit, which tags were cut off."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from prep.captions import parse
from prep.clip_bpe import count
from train.emphasis import emphasized, split_tags
from train.validate import AFFORDED, PASS, STRATA, alone, losses_of, without_keyword

if TYPE_CHECKING:
    from torch import Tensor

    from train.config import DataConfig, TrainConfig
    from train.pictures import Picture
    from train.state import Job, TrainState

Measure = Callable[[Sequence["Picture"], Sequence[str]], "Tensor"]  # pictures and what they are called -> losses (P, T)

MOST = 200  # pictures that are measured, evenly spread
FEWEST = 6  # pictures under which none can be told to differ from the others
# Robust deviations from the median that make a picture one of its own (Iglewicz and Hoaglin, 1993). Measured on the pocket base with 18 pictures
# of the character: after 150 steps none is over 1.5 from the rest; two of other characters are at -8 and -10, one repeated ten times as often at 4.4.
FAR = 3.5
LEARNED = 0.02  # median share of the base's loss that must be gone before pictures can be told apart; less is noise
LESS, MORE = 0.5, 0.6  # shares of the typical gain, and of the typical loss that is left, under which a picture stands out
KEYWORD = 0.01  # median share that the keyword is worth, under which it tells nothing of a picture
NORMAL = 1.4826  # the median absolute deviation of a normal distribution times this is its standard deviation
SHOWN = 5  # tags or pictures that a sentence names


@dataclass(frozen=True)
class PictureRow:
    """What is known of one training picture after a run; losses are means over the same noise and timesteps."""

    path: Path
    base: float  # the base's loss
    loss: float  # the run's
    improvement: float  # share of the base's loss that is gone
    keyword: float  # of it, what is not gone without the keyword in the caption
    z: float  # how far log(base / loss) is from the others', in robust deviations
    verdict: str  # "" or a key of VERDICTS
    cut_tags: tuple[str, ...]  # that its caption loses to max_token_length


VERDICTS = {
    "mislabelled": "they gain far less than the others; look whether they show the concept, and take them or the keyword in their captions out",
    "memorised": "they are learned far better than the others; lower their repeats, or look for copies of them",
    "unlearned": "they are no better than in the base, while others are; look whether they are spoiled",
}


def picture_report(job: Job, state: TrainState, measure: Measure | None = None) -> list[PictureRow]:
    """Measure the training pictures with the run's result against the base, with and without the keyword.

    Takes 4 x 8 forward passes a picture, and no more pictures than an eighth of the run's time allows for, taken evenly. `measure` must
    see the same noise each time; left out, it is the one that judges the run.
    """
    pictures = spread([picture for picture in job.data.pictures if not picture.folder.is_reg], affordable(job))
    captions, measure = [picture.caption for picture in pictures], measure or measure_of(job)
    bare = [without_keyword(caption, job.config.data.keyword) for caption in captions]
    with alone(state):
        base, base_bare = measure(pictures, captions), measure(pictures, bare)
    with state.result():
        loss, loss_bare = measure(pictures, captions), measure(pictures, bare)
    shares, fits = _shares(base - loss, base), _shares((base - loss) - (base_bare - loss_bare), base)
    scores = robust_scores([-math.log(max(1 - share, 1e-6)) for share in shares])
    verdicts = [verdict_of(*own, median(shares), median(fits)) for own in zip(shares, scores, fits, robust_scores(fits), strict=True)]
    return [
        PictureRow(
            path=picture.path,
            base=float(base[n].mean()),
            loss=float(loss[n].mean()),
            improvement=shares[n],
            keyword=fits[n],
            z=scores[n],
            verdict=verdicts[n],
            cut_tags=tuple(cut_tags(picture.caption, picture.settings, job.config.model.max_token_length)),
        )
        for n, picture in enumerate(pictures)
    ]


def verdict_of(share: float, score: float, fit: float, fit_score: float, typical: float, helps: float) -> str:
    """Return a picture's verdict from its improvement and what of it the keyword gave, each with its score, and the medians of both."""
    if typical < LEARNED:
        return ""
    if (score <= -FAR and share < LESS * typical) or (helps > KEYWORD and fit <= 0 and fit_score <= -FAR):
        return "mislabelled"
    if score >= FAR and 1 - share < MORE * (1 - typical):
        return "memorised"
    return "unlearned" if share <= 0 else ""


def affordable(job: Job) -> int:
    """Return how many pictures may be measured."""
    passes = job.steps * job.data.batches_a_step * job.config.data.train_batch_size / PASS  # a step is three forward passes
    return max(FEWEST, min(MOST, int(AFFORDED * passes / (4 * STRATA))))


def measure_of(job: Job) -> Measure:
    """Return the measure that judges the run."""

    def measure(pictures: Sequence[Picture], captions: Sequence[str]) -> Tensor:
        import torch

        return torch.stack([losses_of(job, picture, caption) for picture, caption in zip(pictures, captions, strict=True)])

    return measure


def robust_scores(values: Sequence[float]) -> list[float]:
    """Return how far each value is from the median in units of the median absolute deviation, as a standard deviation; 0 for few values."""
    if len(values) < FEWEST:
        return [0.0] * len(values)
    middle = median(values)
    deviation = NORMAL * median(abs(value - middle) for value in values)
    return [(value - middle) / max(deviation, 1e-12) for value in values]


def spread(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """Take at most so many, evenly."""
    if len(pictures) <= most:
        return list(pictures)
    return [pictures[n * len(pictures) // most] for n in range(most)]


def cut_tags(caption: str, data: DataConfig, max_token_length: int) -> list[str]:
    """List the tags of a caption, in its own order, that do not reach the model whole; tokens are counted as the text encoder gets them."""
    text = " ".join(part for part in (data.caption_prefix, caption.partition("\n")[0].strip(), data.caption_suffix) if part)
    if _tokens(text, data) <= max_token_length:
        return []
    tags = split_tags(text) if data.weighted_captions else parse(text)
    # Of growing beginnings the count only grows, so the first one that is too long is where the cut is.
    low, high = 0, len(tags)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _tokens(", ".join(tags[: middle + 1]), data) <= max_token_length else (low, middle)
    return tags[low:]


def truncation_notes(pictures: Sequence[Picture], config: TrainConfig) -> list[str]:
    """Say before training what max_token_length cuts off, a sentence each; tags that are cut wherever they stand are never trained."""
    length = config.model.max_token_length
    training = [picture for picture in pictures if not picture.folder.is_reg]
    cut = {picture.path: cut_tags(picture.caption, picture.settings, length) for picture in training}
    longer = [picture for picture in training if cut[picture.path]]
    if not longer:
        return []
    most = max(_tokens(picture.caption, picture.settings) for picture in longer)
    enough = next((allowed for allowed in (75, 150, 225) if allowed >= most), 225)
    advice = f"set max_token_length = {enough}" if enough > length else "shorten the captions"
    head = f"{len(longer)} of {len(training)} captions are longer than {length} tokens"
    if all(picture.settings.shuffle_caption for picture in longer):
        lost = max(len(tags) for tags in cut.values())
        return [f"{head}: of each use up to {lost} tags are left out, others each time; {advice}"]
    never = never_trained(training, cut)
    named = f", and these tags are in all captions behind the cut, so they are never trained: {_few(never)}" if never else ""
    return [f"{head}{named}; {advice}"]


def never_trained(pictures: Sequence[Picture], cut: dict[Path, list[str]]) -> list[str]:
    """List the tags that are cut off in every caption that holds them, the most frequent first."""
    seen: dict[str, int] = {}
    kept: set[str] = set()
    for picture in pictures:
        lost = set() if picture.settings.shuffle_caption else {tag.lower() for tag in cut[picture.path]}
        for tag in {tag.lower() for tag in parse(picture.caption.partition("\n")[0])}:
            seen[tag] = seen.get(tag, 0) + 1
            if tag not in lost:
                kept.add(tag)
    return sorted((tag for tag in seen if tag not in kept), key=lambda tag: (-seen[tag], tag))


def report_lines(rows: Sequence[PictureRow], tree: Path) -> list[str]:
    """Say what stands out, a sentence for each kind of verdict."""
    lines = []
    for verdict, advice in VERDICTS.items():
        paths = [row.path for row in rows if row.verdict == verdict]
        if paths:
            lines.append(f"{verdict}: {_few([str(path.relative_to(tree)) if path.is_relative_to(tree) else str(path) for path in paths])}: {advice}")
    return lines


def _shares(part: Tensor, whole: Tensor) -> list[float]:
    return [float(share) for share in part.mean(1) / whole.mean(1)]


def _tokens(text: str, data: DataConfig) -> int:
    return sum(count(piece) for piece, _ in emphasized(text)) if data.weighted_captions else count(text)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
