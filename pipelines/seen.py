"""The keyword test by a tagger's eye: how far sample pictures went from the base's towards the training pictures, with the keyword and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prep.images import WHITE, decode
from prep.options import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from prep.taggers import Tagger
    from train.pictures import Picture
    from train.state import Job

PICTURES = 16  # of each kind: training pictures, and pictures drawn with and without the keyword
STEPS, SCALE, SEED = 15, 5.0, 7000  # of a drawn picture
# Length of the way from the base's pictures to the training pictures, in scores, under which a tagger sees no concept to speak of.
LEAST = 0.3


@dataclass(frozen=True)
class Seen:
    """A tagger, the prompts, and where on its scores the base's pictures lie and which way the training pictures."""

    job: Job
    tagger: Tagger
    prompts: tuple[str, ...]  # captions with the keyword
    bare: tuple[str, ...]  # the same without it
    start: np.ndarray  # (2, tags): the base's mean scores, with the keyword and without
    way: np.ndarray  # (tags,): from the first of these to the training pictures

    @classmethod
    def of(cls, job: Job, concept: Sequence[Picture], bare: Sequence[str], name: str) -> Seen:
        """Score the training pictures and the base's own drawings; the network must not act while this runs.

        Raises UserError if the tagger sees nothing in the training pictures that the base does not draw anyway.
        """
        import numpy as np

        from prep.taggers import locate

        tagger = locate(name).open("cpu", PICTURES)
        training = [picture for picture in job.data.pictures if not picture.folder.is_reg]
        shown = training[:: max(1, len(training) // PICTURES)][:PICTURES]
        times = -(-PICTURES // len(concept))
        prompts, plain = ([*words] * times for words in ([picture.caption for picture in concept], bare))
        start = np.stack([_mean(tagger, _drawn(job, words[:PICTURES])) for words in (prompts, plain)])
        way = _mean(tagger, [decode(picture.path, WHITE).image for picture in shown]) - start[0]
        if float(np.linalg.norm(way)) < LEAST:
            raise UserError(f"the tagger {name} sees nothing in the training pictures that the base does not draw anyway; leave --tagger away")
        return cls(job, tagger, tuple(prompts[:PICTURES]), tuple(plain[:PICTURES]), start, way)

    def look(self) -> tuple[float, float, float]:
        """Return learned, needs the keyword and bleed: shares of the way, 0 at the base's pictures and 1 at the training pictures."""
        went = [self._share(_mean(self.tagger, _drawn(self.job, words)), n) for n, words in enumerate((self.prompts, self.bare))]
        return went[0], went[0] - went[1], went[1]

    def _share(self, scores: np.ndarray, kind: int) -> float:
        return float((scores - self.start[kind]) @ self.way / (self.way @ self.way))


def _drawn(job: Job, prompts: Sequence[str]) -> list[Image.Image]:
    """Draw prompts, each with a seed of its own that is the same every time."""
    from train.memory import leave_device
    from train.sample import Generator

    model, side = job.model, job.config.data.resolution or job.model.resolution
    model.to(job.runtime.device)
    generator = Generator(model, clip_skip=job.config.model.clip_skip)
    seeds = range(SEED, SEED + len(prompts))
    with job.runtime.autocast():
        pictures = list(generator.draw(prompts, seeds, steps=STEPS, guidance_scale=SCALE, size=side))
    leave_device(model, job.data.text is None)
    return pictures


def _mean(tagger: Tagger, pictures: Sequence[Image.Image]) -> np.ndarray:
    scores: np.ndarray = tagger.score([tagger.prepare(picture) for picture in pictures])
    return scores.mean(0)
