"""Measure `prep dedup` beside imagehash's pHash <= 4, and the search of a million hashes.

usage: python benchmarks/dedup.py [few] [million|one_character|one_thing_differs|recall]

Asked: recall >= 0.95 over all kinds of copies, no false drop among 200 drawings of one character, a million hashes in < 60 s and 2 GB.
Prints one JSON object; `few` takes a third of the drawings, a name only that measurement. imagehash is in the `test` extra.
"""

from __future__ import annotations

import io
import json
import math
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from pipelines.pocket import world
from prep.dedup import Dedup
from prep.similar import MIRROR, near_pairs
from prep.store import Store

Change = Callable[[Image.Image, random.Random], Image.Image]
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle", "retina", "hubble_deep_field", "camera", "coins")
DRAWINGS = 200


def compressed(image: Image.Image, rng: random.Random) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(40, 95))
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, rng: random.Random) -> Image.Image:
    factor = 2 ** rng.uniform(-1, 1)
    how = rng.choice((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS))
    return image.resize((round(image.width * factor), round(image.height * factor)), how)


def mirrored(image: Image.Image, rng: random.Random) -> Image.Image:
    return ImageOps.mirror(image)


def bordered(image: Image.Image, rng: random.Random) -> Image.Image:
    colour = tuple(rng.choice(((0, 0, 0), (255, 255, 255), (rng.randrange(256), rng.randrange(256), rng.randrange(256)))))
    across, down = (round(rng.uniform(0.03, 0.15) * side) for side in image.size)
    sides = rng.choice(((across, down), (across, 0), (0, down)))
    return ImageOps.expand(image, sides, colour)


def url(image: Image.Image, rng: random.Random) -> Image.Image:
    """Write an address into a corner or the middle of the lower edge."""
    image, text = image.copy(), rng.choice(("www.example-art.com", "pixiv.example/12345", "(c)2024 mira_art", "@mira_art"))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(max(10, round(image.width * rng.uniform(0.03, 0.05))))
    _, _, wide, high = pen.textbbox((0, 0), text, font)
    x = rng.choice((0.02 * image.width, 0.5 * (image.width - wide), 0.98 * image.width - wide))
    y = rng.choice((0.02 * image.height, 0.98 * image.height - high))
    pen.text((x, y), text, rng.choice(((255, 255, 255), (0, 0, 0), (220, 30, 40))), font)
    return image


def signed(image: Image.Image, rng: random.Random) -> Image.Image:
    """Scribble a signature into a lower corner."""
    image = image.copy()
    wide, high = rng.uniform(0.12, 0.22) * image.width, rng.uniform(0.05, 0.08) * image.height
    x, y = rng.choice((0.04, 0.74)) * image.width, 0.98 * image.height - high
    waves = [rng.uniform(2, 7) for _ in range(3)]
    steps = [i / 60 for i in range(61)]
    heights = [0.5 + 0.5 * math.sin(4 * t * sum(waves)) * (1 - 0.4 * t) for t in steps]
    points = [(x + wide * (t + 0.06 * math.sin(40 * t)), y + high * up) for t, up in zip(steps, heights, strict=True)]
    ImageDraw.Draw(image).line(points, rng.choice(((20, 20, 20), (250, 250, 250), (150, 20, 30))), max(1, image.width // 170), "curve")
    return image


def watermarked(image: Image.Image, rng: random.Random) -> Image.Image:
    """Lay translucent words across the middle."""
    text = rng.choice(("SAMPLE", "PREVIEW", "example-art.com"))
    font = ImageFont.load_default(round(image.width * (0.16 if len(text) < 8 else 0.09)))
    layer = Image.new("L", image.size)
    pen = ImageDraw.Draw(layer)
    _, _, wide, high = pen.textbbox((0, 0), text, font)
    pen.text(((image.width - wide) / 2, rng.uniform(0.3, 0.6) * image.height - high / 2), text, round(255 * rng.uniform(0.25, 0.5)), font)
    layer = layer.rotate(rng.choice((0, 0, 30, -30)))
    ink = rng.choice(((255, 255, 255), (0, 0, 0), (128, 128, 128)))
    return Image.composite(Image.new("RGB", image.size, ink), image, layer)


def turned_hue(image: Image.Image, rng: random.Random) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turn = rng.choice((-1, 1)) * rng.randint(10, 128)
    return Image.merge("HSV", (hue.point(lambda level: (level + turn) % 256), saturation, value)).convert("RGB")


def brighter(image: Image.Image, rng: random.Random) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.65, 1.35))


def contrasted(image: Image.Image, rng: random.Random) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(rng.uniform(0.6, 1.4))


def faded(image: Image.Image, rng: random.Random) -> Image.Image:
    return ImageEnhance.Color(image).enhance(rng.choice((rng.uniform(0.3, 0.7), rng.uniform(1.3, 1.6))))


def grey(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.convert("L").convert("RGB")


# Kind of copy -> what is done, one after the other; each copy is compressed at last, as what goes round on the web is.
KINDS: dict[str, tuple[Change, ...]] = {
    "compressed": (),
    "resized": (resized,),
    "mirrored": (mirrored, resized),
    "bordered": (bordered, resized),
    "url": (url, resized),
    "signed": (signed, resized),
    "watermarked": (watermarked, resized),
    "hue": (turned_hue, resized),
    "brightness": (brighter, resized),
    "contrast": (contrasted, resized),
    "saturation": (faded, resized),
    "grey": (grey, resized),
    "mirrored_url": (mirrored, url, resized),
    "grey_bordered": (grey, bordered),
}


def photographs() -> dict[str, Image.Image]:
    """Return the photographs that come with scikit-image and scikit-learn, at most 640 pixels."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    found: dict[str, np.ndarray] = {}
    for name in PHOTOGRAPHS:
        picture = getattr(data, name)()
        found[name] = picture[0] if isinstance(picture, tuple) else picture
    found |= dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    images = {name: Image.fromarray(picture).convert("RGB") for name, picture in found.items()}
    for image in images.values():
        image.thumbnail((640, 640), Image.Resampling.LANCZOS)
    return images


def originals(drawings: int) -> dict[str, Image.Image]:
    """Return the photographs, drawings of the marked character, and drawings of others, 256 to 640 pixels."""
    rng = random.Random(3)
    found = photographs()
    found |= {f"mira{index}": image for index, (image, _) in enumerate(world.demo_pictures(drawings, 5))}
    return found | {f"other{index}": world.draw(world.sample(rng), rng.randrange(256, 513), index) for index in range(drawings)}


def variants(rng: random.Random) -> dict[str, Image.Image]:
    """Draw characters who differ from one another in one thing only, in one pose; every second one is mirrored, all are compressed."""
    images = {}
    for index in range(12):
        c = replace(world.sample(rng, index % 2 == 1), eyewear="", eyes=rng.choice(list(world.EYES)))
        looks = [c, *(replace(c, mouth=mouth) for mouth in world.MOUTHS if mouth != c.mouth), replace(c, blush=not c.blush)]
        looks += [replace(c, eyes=eyes) for eyes in ("", *world.EYES) if eyes != c.eyes]
        looks += [replace(c, eyewear=eyewear) for eyewear in world.EYEWEAR[1:]]
        looks += [replace(c, neckwear=neckwear) for neckwear in world.NECKWEAR if neckwear != c.neckwear]
        looks += [replace(c, shirt=shirt) for shirt in list(world.SHIRTS)[:3] if shirt != c.shirt]
        looks += [replace(c, background=background) for background in list(world.BACKGROUNDS)[:3] if background != c.background]
        for number, look in enumerate(looks):
            image = compressed(world.draw(look, 384, index), rng)
            images[f"c{index}-{number}"] = ImageOps.mirror(image) if number % 2 else image
    return images


def ours(images: dict[str, Image.Image]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Run `prep dedup` on pictures: the pairs of names of which one was dropped for the other, and those that were only proposed."""
    with tempfile.TemporaryDirectory() as folder:
        for name, image in images.items():
            image.save(Path(folder) / f"{name}.png", compress_level=1)
        store = Store(Path(folder))
        items = list(Dedup()(store.items(), store))
    pairs = [
        {(item.key, item.detail.split()[1]) for item in items if state(item) == "duplicate"} for state in (lambda i: i.dropped, lambda i: i.proposed)
    ]
    return pairs[0], pairs[1]


def imagehash_pairs(images: dict[str, Image.Image]) -> set[tuple[str, str]]:
    """Return the pairs with pHashes at most 4 bits apart."""
    import imagehash

    hashes = {name: imagehash.phash(image) for name, image in images.items()}
    return {(a, b) for a, b in combinations(images, 2) if hashes[a] - hashes[b] <= 4}


def recall(images: dict[str, Image.Image]) -> dict[str, dict[str, float]]:
    """Return for each kind of copy the share that was found, and the pairs of different pictures that were taken for copies."""
    table = {}
    for kind, changes in KINDS.items():
        copies = {}
        for index, (name, image) in enumerate(images.items()):
            rng = random.Random(100 * index + 7)
            for change in changes:
                image = change(image, rng)
            copies[f"{name}~"] = compressed(image, rng)
        found, proposed = ours(images | copies)
        peer = imagehash_pairs(images | copies)
        right = [{frozenset(pair) for pair in pairs if len({name.rstrip("~") for name in pair}) == 1} for pairs in (found, proposed, peer)]
        table[kind] = {
            "found": len(right[0]) / len(images),
            "proposed": len(right[1]) / len(images),
            "false": len(found) - len(right[0]),
            "phash_found": len(right[2]) / len(images),
            "phash_false": len(peer) - len(right[2]),
        }
        print(kind, table[kind], file=sys.stderr, flush=True)
    table["all"] = {name: sum(row[name] for row in table.values()) / (1 if "false" in name else len(KINDS)) for name in table["url"]}
    return table


def false_drops(images: dict[str, Image.Image]) -> dict[str, object]:
    """Return what is dropped among pictures that are all different."""
    start = time.perf_counter()
    found, proposed = ours(images)
    seconds = time.perf_counter() - start
    peer = imagehash_pairs(images)
    gone = len({b for _, b in peer})
    return {
        "of": len(images),
        "dropped": sorted(found),
        "proposed": len(proposed),
        "seconds": seconds,
        "phash_pairs": len(peer),
        "phash_dropped": gone,
    }


def million(count: int = 1_000_000) -> dict[str, float]:
    """Search random hashes for all pairs, plain and mirrored, 1,000 of which were planted."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    sources = rng.choice(count // 2, 1000, replace=False)
    for number, source in enumerate(sources):
        bits = rng.choice(64, number % 8, replace=False)
        changed = int(hashes[source]) ^ sum(1 << int(bit) for bit in bits) ^ (MIRROR if number % 2 else 0)
        hashes[count - 1 - number] = changed
    start, found = time.perf_counter(), set()
    for turn in (0, MIRROR):
        for left, right in near_pairs(hashes, turn):
            found |= {(min(pair), max(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    planted = sum((int(source), count - 1 - number) in found for number, source in enumerate(sources))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return {"hashes": count, "planted_found": planted, "seconds": time.perf_counter() - start, "peak_mb": peak}


def measure(names: set[str], share: int) -> dict[str, object]:
    """Take the measurements named, or all."""
    rows: dict[str, Callable[[], object]] = {
        "million": million,  # first, so that the peak is its own
        "one_character": lambda: false_drops({f"p{index}": image for index, (image, _) in enumerate(world.demo_pictures(DRAWINGS // share, 11))}),
        "one_thing_differs": lambda: false_drops(variants(random.Random(1))),
        "recall": lambda: recall(originals(24 // share)),
    }
    return {name: row() for name, row in rows.items() if name in names or not names & rows.keys()}


if __name__ == "__main__":
    print(json.dumps(measure(set(sys.argv[1:]), 3 if "few" in sys.argv else 1), indent=1))
