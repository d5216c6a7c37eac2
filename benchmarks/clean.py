"""How fast is `prep clean`, and does its memory stay flat? Against a bare loop of Pillow that decodes and saves.

usage: python benchmarks/clean.py [--pictures 96] [--many 20000]

Speed: photographs of about 1.5 megapixels in, PNG out; each pair of runs takes turns, the ratio is the median over the pairs.
Memory: the peak of the whole process (and of its largest worker) over 1,000 and over --many small pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PAIRS = 5
SMALL = 1_000

# Runs `prep clean` in a process of its own and says how much memory it took at most, in MiB.
MEASURED = """
import resource, sys
from prep.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print("PEAKS", *peaks)
"""

# What everybody would write: turn upright, convert, save.
BARE = """
import sys
from pathlib import Path
from PIL import Image, ImageOps
raw, out = map(Path, sys.argv[1:])
out.mkdir()
for path in sorted(raw.iterdir()):
    with Image.open(path) as image:
        ImageOps.exif_transpose(image).convert("RGB").save(out / f"{path.stem}.png")
"""


def photographs(folder: Path, count: int) -> None:
    """Write `count` different photographs as JPEG, about 1.5 megapixels each."""
    import skimage.data
    from PIL import Image, ImageEnhance

    folder.mkdir()
    originals = [Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    for number in range(count):
        image = originals[number % len(originals)].resize((1500 - number % 7, 1000 + number % 5))
        ImageEnhance.Brightness(image).enhance(0.8 + 0.4 * number / count).save(folder / f"{number:05}.jpg", quality=92)


def small_pictures(folder: Path, count: int) -> None:
    """Write `count` different pictures of 208 x 208 pixels."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number in range(count):
        block = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(np.kron(block, np.ones((52, 52, 1), np.uint8))).save(folder / f"{number:06}.jpg", quality=80)


def timed(command: list[str], out: Path) -> float:
    """Run a command that fills `out`, which is emptied before; return its seconds."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def ratio(first: Callable[[], float], second: Callable[[], float]) -> float:
    """Return the median of first / second over pairs of runs that take turns."""
    return statistics.median(first() / second() for _ in range(PAIRS))


def peak(raw: Path, out: Path, workers: int) -> float:
    """Return the peak memory in MiB of cleaning a folder: the process's, and the largest worker's for each worker."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", MEASURED, "clean", str(raw), "--out", str(out), "--workers", str(workers)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    own, child = map(float, next(line for line in printed.splitlines() if line.startswith("PEAKS")).split()[1:])
    return own + (workers * child if workers > 1 else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--many", type=int, default=20_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        photographs(place / "raw", args.pictures)

        def clean(workers: int, *options: str) -> Callable[[], float]:
            command = ["-m", "prep", "clean", str(place / "raw"), "--out", str(place / "out"), "--workers", str(workers), *options]
            return lambda: timed([sys.executable, *command], place / "out")

        bare = [sys.executable, "-c", BARE, str(place / "raw"), str(place / "bare")]
        figures = {
            "one worker, plain, of the bare loop's throughput": ratio(lambda: timed(bare, place / "bare"), clean(1, "--no-check", "--no-report")),
            "one worker, with quality and report, of the bare loop's throughput": ratio(lambda: timed(bare, place / "bare"), clean(1)),
            "two workers over one": ratio(clean(1), clean(2)),
        }
        small_pictures(place / "many", args.many)
        (place / "few").mkdir()
        for path in sorted((place / "many").iterdir())[:SMALL]:
            shutil.copy(path, place / "few")
        for workers in (1, 2):
            few, many = (peak(place / folder, place / "out", workers) for folder in ("few", "many"))
            figures[f"memory of {args.many} pictures over {SMALL}, {workers} worker(s), {few:.0f} MiB"] = many / few
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
