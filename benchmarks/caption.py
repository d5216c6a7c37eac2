"""How long `prep caption --threshold` takes over pictures whose scores are kept; the bar of issue 5 is 10 s for 20,000.

python benchmarks/caption.py --pictures 20000 [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prep.captions import caption_path
from prep.item import Item
from prep.options import atomic_write
from prep.rules import rules_of
from prep.scores import Labels, ScoreStore
from prep.store import Store

LABELS, CHARACTERS = 10_861, 2_751  # of the WD taggers of version 3
ABOVE = 35.0  # tags of a picture at the usual threshold, in the middle
# The smallest PNG there is: what is in the picture does not matter, its caption is compiled from its scores.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)


def labels() -> Labels:
    """Make a list of tags like a tagger's: four ratings, general tags (those that the rules know among them), names."""
    known = sorted(set(rules_of().implications).union(*rules_of().implications.values()))
    general = [*known, *(f"tag_number_{number}" for number in range(LABELS))][: LABELS - CHARACTERS - 4]
    np.random.default_rng(0).shuffle(general)
    names = (*("general", "sensitive", "questionable", "explicit"), *general, *(f"name_{number}_(series)" for number in range(CHARACTERS)))
    return Labels(names, ("rating",) * 4 + ("general",) * len(general) + ("character",) * CHARACTERS)


def rows(pictures: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Draw scores as a tagger gives them: most of them next to nothing, some dozens anywhere, few names."""
    common = 1 / np.arange(1, LABELS - CHARACTERS - 3) ** 0.8
    for _ in range(pictures):
        values = rng.exponential(0.002, LABELS).astype(np.float32)
        shown = 4 + rng.choice(len(common), rng.poisson(ABOVE * 1.6), p=common / common.sum())
        values[shown] = rng.random(len(shown))
        values[:4] = rng.dirichlet(np.ones(4))
        values[-rng.integers(1, CHARACTERS)] = rng.random()
        yield np.minimum(values, 1)


def make(folder: Path, pictures: int) -> None:
    """Plant a folder of tiny pictures with scores and sidecars."""
    store, rng = Store(folder), np.random.default_rng(0)
    with ScoreStore.open(store.hidden) as scores:
        model = scores.register("planted", "benchmark", 1, labels())
        batch: dict[str, np.ndarray] = {}
        for number, values in enumerate(rows(pictures, rng)):
            path = folder / f"{number:06}.png"
            path.write_bytes(PNG)
            item = Item(path.stem, path, digest=f"{number:064x}", width=1, height=1, source_sha256=f"{number:064x}")
            sidecar = store.hidden / "items" / f"{item.key}.json"
            sidecar.parent.mkdir(parents=True, exist_ok=True)
            store.save(item)
            batch[item.digest] = values
            if len(batch) == 500 or number == pictures - 1:
                scores.put(model, batch)
                batch = {}


def processor() -> float:
    """Return the seconds that the processor has worked for this process and its workers that have ended."""
    return sum(os.times()[:4])


def run(folder: Path, threshold: float) -> tuple[float, float]:
    """Compile all captions as the command does after its imports; return seconds on the clock and of the processor."""
    from prep.caption import Caption
    from prep.project import Place

    start, worked = time.perf_counter(), processor()
    Caption(threshold=threshold).main(Place(folder))
    return time.perf_counter() - start, processor() - worked


def written(folder: Path, pictures: int, repeat: int = 500) -> float:
    """Return the seconds that writing as many captions with `atomic_write`, one by one, would take."""
    start = time.perf_counter()
    for number in range(repeat):
        atomic_write(folder / f"{number}.txt", "1girl, solo\n")
    return (time.perf_counter() - start) / repeat * pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--folder", type=Path, help="made there once and kept")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="bench-caption-"))
    start = time.perf_counter()
    if not (folder / ".atelier").exists():
        make(folder, options.pictures)
        print(f"made {options.pictures} pictures in {time.perf_counter() - start:.1f} s")
    print("first captions    {:6.2f} s, of the processor {:.2f} s".format(*run(folder, 0.35)))
    profile = cProfile.Profile() if options.profile else None
    if profile:
        profile.enable()
    seconds, worked = run(folder, 0.4)
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    print(f"threshold 0.4     {seconds:6.2f} s, of the processor {worked:.2f} s; load of the machine {os.getloadavg()[0]:.1f}")
    print("threshold 0.4 again {:4.2f} s, of the processor {:.2f} s (nothing changes)".format(*run(folder, 0.4)))
    beside = Path(tempfile.mkdtemp(prefix="bench-caption-"))
    one_by_one = written(beside, options.pictures)
    print(f"writing the captions one by one, alone: {one_by_one:.2f} s; ratio of the whole to it {seconds / one_by_one:.2f}")
    loaded = {"onnxruntime", "torch", "transformers"} & set(sys.modules)
    print(
        f"models loaded: {', '.join(loaded) or 'none'}; tags in the first caption: {caption_path(folder / '000000.png').read_text().count(',') + 1}"
    )
    shutil.rmtree(beside)
    if not options.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
