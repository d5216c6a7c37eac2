"""How near does `prep tag` come to the bare model, and what does int8 bring? Against onnxruntime alone, on the same session and machine.

usage: python benchmarks/tag.py MODEL [--pictures 48] [--megapixels 12] [--pairs 3] [--device cpu] [--precision fp32] [--batch 16] [--no-int8]

MODEL is a folder that make_tagger.py --size base has filled (ViT-B, 448 px, 10,861 tags). End to end: photographs as large JPEG
in, scores in the store out; bare: the same session on as many prepared pictures, in the same passes. The two take turns; the ratio is the
median over the pairs. Flips are counted on the pocket tagger's own task, fresh drawings, at its threshold.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prep.images import load, pixel_hash
from prep.processor import multiplies_bytes
from prep.scores import ScoreStore
from prep.store import Store
from prep.tag import Tag
from prep.taggers import locate
from prep.taggers.onnx_tagger import OnnxTagger
from prep.taggers.precision import SAMPLE, lighter

DRAWINGS = 300


def photographs(folder: Path, count: int, megapixels: float) -> None:
    """Write `count` different photographs as JPEG, each of about so many megapixels, every third upright."""
    import skimage.data
    from PIL import Image, ImageEnhance

    originals = [Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    side = round((megapixels * 1e6 / 12) ** 0.5)
    for number in range(count):
        wide = originals[number % len(originals)].resize((4 * side - number % 7, 3 * side + number % 5))
        image = ImageEnhance.Brightness(wide).enhance(0.8 + 0.4 * number / count)
        (image if number % 3 else image.transpose(Image.Transpose.ROTATE_90)).save(folder / f"{number:05}.jpg", quality=92)


Times = tuple[float, float]  # seconds on the clock, and of the processor (all threads)


def end_to_end(step: Tag, folder: Path) -> Times:
    """Return the time that it takes to score a folder into an empty store; the model is loaded."""
    store = Store(folder)
    shutil.rmtree(store.hidden, ignore_errors=True)
    start, busy = time.perf_counter(), time.process_time()
    kept = sum(not item.dropped for item in step(store.items(), store))
    times = time.perf_counter() - start, time.process_time() - busy
    assert kept == len(list(folder.glob("*.jpg")))
    return times


def bare(tagger: OnnxTagger, count: int) -> Times:
    """Return the time that the same session takes for `count` pictures that need no preparing."""
    size = tagger.pass_size
    batch = tagger._filled([np.zeros((tagger.size, tagger.size, 3), np.uint8)], size)
    start, busy = time.perf_counter(), time.process_time()
    tagger.sessions.run([batch] * -(-count // size))
    return time.perf_counter() - start, time.process_time() - busy


def parts(folder: Path, tagger: OnnxTagger, bare_busy: float) -> None:
    """Print what each part takes of one core for a picture, and their sum over the model's: the least that decoding adds to the work."""
    spent: dict[str, list[float]] = {"decode": [], "digest": [], "resize": [], "store": []}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = work()
        spent[part].append(time.perf_counter() - start)
        return made

    row = np.random.default_rng(0).random(len(tagger.labels.names)).astype(np.float32) ** 9
    with ScoreStore.open(folder / "parts") as scores:
        known = scores.register("parts", "", 1, tagger.labels)
        for path in sorted(folder.glob("*.jpg"))[:12]:
            image = timed("decode", partial(load, path))
            timed("digest", partial(pixel_hash, image))
            timed("resize", partial(tagger.prepare, image))
            timed("store", partial(scores.put, known, {path.name: row}))
    each = {part: statistics.median(times) for part, times in spent.items()}
    print("  " + ", ".join(f"{part} {1e3 * seconds:.1f} ms" for part, seconds in each.items()), end="; ")
    print(f"model {1e3 * bare_busy:.0f} ms of the processor, the rest is {sum(each.values()) / bare_busy:.1%} of it")


def throughput(model: Path, args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs(folder, args.pictures, args.megapixels)
        step = Tag(tagger=str(model), device=args.device, precision=args.precision, batch_size=args.batch)
        tagger = step.opened(Store(folder)).tagger
        assert isinstance(tagger, OnnxTagger)
        bare(tagger, tagger.pass_size)  # the first pass allocates
        pairs = [(bare(tagger, args.pictures), end_to_end(step, folder)) for _ in range(args.pairs)]
        parts(folder, tagger, statistics.median(alone[1] for alone, _ in pairs) / args.pictures)
    for alone, whole in pairs:
        for what, a, b in zip(("clock", "processor"), alone, whole, strict=True):
            print(f"  {what}: bare {a / args.pictures:.3f} s a picture, end to end {b / args.pictures:.3f} s, ratio {a / b:.3f}")
    provider = tagger.provider.removesuffix("ExecutionProvider")
    ratio = statistics.median(alone[0] / whole[0] for alone, whole in pairs)
    print(
        f"end to end / bare, {provider} {args.precision}, {args.pictures} pictures of {args.megapixels:g} megapixels: {ratio:.3f} (bar 0.95)",
        flush=True,
    )


def int8(model: Path, pairs: int) -> None:
    import skimage.data
    from PIL import Image

    located = locate(str(model))
    photograph = Image.fromarray(skimage.data.astronaut())
    with tempfile.TemporaryDirectory() as name:
        samples = (photograph.rotate(11 * number) for number in range(8))
        made, _ = lighter(located, "int8", Path(name), samples)
        whole, small = OnnxTagger(located.row, located.files, "cpu"), OnnxTagger(made.row, made.files, "cpu")
        times = [(bare(whole, 3), bare(small, 3)) for _ in range(pairs + 1)][1:]
    ratio = statistics.median(slow[0] / fast[0] for slow, fast in times)
    print(f"int8 / fp32, ViT-B: {ratio:.2f} (bar 1.6 with VNNI; VNNI here: {multiplies_bytes()})", flush=True)


def flips() -> None:
    from PIL import Image

    from pipelines.pocket import drawings

    fresh = [Image.fromarray(pixels) for pixels in drawings.make(DRAWINGS + SAMPLE, 77, marks=True).pixels]
    # Every second one calibrates, the others are compared.
    with tempfile.TemporaryDirectory() as name:
        _, sentence = lighter(locate("pocket"), "int8", Path(name), iter(fresh))
    print(f"pocket tagger, {sentence} (bar 1 %)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--no-int8", action="store_true")
    args = parser.parse_args()
    throughput(args.model, args)
    if not args.no_int8:
        flips()
        int8(args.model, args.pairs)


if __name__ == "__main__":
    main()
