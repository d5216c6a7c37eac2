"""Framing: how many faces each mode of `prep crop` cuts, beside a crop to the middle, and what each embedded detector takes for a picture.

python benchmarks/framing.py [DRAWINGS]
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator

from PIL import Image

from pipelines.pocket.world import BACKGROUNDS, draw, sample
from prep.boxes import Corners, area, common, corners, holds, people
from prep.detectors import DETECTORS, detector
from prep.framing import MODES, Scene
from prep.item import Box
from prep.stages import cuts
from prep.subject import touches

Picture = tuple[Image.Image, list[Corners]]  # with the faces that are in it


def middle(scene: Scene) -> Corners:
    """Crop the square in the middle, as trainers do."""
    side, (width, height) = min(scene.size), scene.size
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def photographs() -> Iterator[Picture]:
    """Yield the photographs of scikit-image with a face, whole and cut to other shapes; where the face is was measured by hand."""
    from skimage import data

    image, face = Image.fromarray(data.astronaut()), (177, 70, 272, 175)
    for x0, y0, x1, y1 in ((0, 0, 512, 512), (0, 0, 512, 200), (150, 0, 300, 512), (0, 50, 300, 512), (170, 0, 512, 300), (0, 40, 512, 190)):
        yield image.crop((x0, y0, x1, y1)), [(face[0] - x0, face[1] - y0, face[2] - x0, face[3] - y0)]
    for name in ("chelsea", "coffee", "rocket", "hubble_deep_field", "retina"):
        yield Image.fromarray(getattr(data, name)()), []


def drawings(count: int) -> Iterator[Picture]:
    """Yield drawings, every second one set somewhere in a wide or a tall picture; their faces are those found before that."""
    rng = random.Random(0)
    for seed in range(count):
        character = sample(rng)
        image = draw(character, rng.choice((256, 384, 512)), seed)
        faces = [corners(box) for box in detector("face")([image])[0][:1]]
        if seed % 2:
            longer = round(image.width * rng.uniform(1.2, 2.5))
            size = (longer, image.height) if seed % 4 == 1 else (image.width, longer)
            x, y = rng.randint(0, size[0] - image.width), rng.randint(0, size[1] - image.height)
            wide = Image.new("RGB", size, BACKGROUNDS[character.background])
            wide.paste(image, (x, y))
            image, faces = wide, [(a + x, b + y, c + x, d + y) for a, b, c, d in faces]
        yield image, faces


def is_cut(crop: Corners, face: Corners) -> bool:
    return not holds(crop, face) and area(common(crop, face)) > 0


def main(count: int = 200) -> None:
    pictures = [*photographs(), *drawings(count)]
    found = [detector("face")([image])[0] for image, _ in pictures]
    modes: dict[str, Callable[[Scene], list[Corners]]] = {name: lambda scene, mode=mode: [mode(scene)] for name, mode in MODES.items()}  # type: ignore[misc]
    modes |= {"stages": lambda scene: list(cuts(scene, ["half", "head"], 256**2).values()), "(middle)": lambda scene: [middle(scene)]}
    print(f"{len(pictures)} pictures, {sum(bool(boxes) for boxes in found)} with a face that is found")
    for name, mode in modes.items():
        start = time.perf_counter()
        crops = [mode(Scene(image, boxes)) for (image, _), boxes in zip(pictures, found, strict=True)]
        seconds = time.perf_counter() - start
        cut_found = sum(is_cut(crop, corners(box)) for places, boxes in zip(crops, found, strict=True) for crop in places for box in boxes)
        rows = [(crop, face) for places, (_, faces) in zip(crops, pictures, strict=True) for crop in places for face in faces]
        lost = sum(not holds(crop, _core(face)) for crop, face in rows)
        counts = f"{sum(map(len, crops)):4} crops, {cut_found:3} found faces cut, {lost:3} of {len(rows)} true faces not whole"
        print(f"{name:9} {counts}, {1000 * seconds / len(pictures):.1f} ms a picture")
    masked = sum(len(_others(boxes, image.size)) for (image, _), boxes in zip(pictures, found, strict=True))
    print(f"people masked in pictures of one person: {masked}")
    for name in (name for name, row in DETECTORS.items() if not row.repo and name != "none"):
        images = [image for image, _ in pictures[:20]]
        detector(name, "cpu")(images[:1])
        start = time.perf_counter()
        detector(name, "cpu")(images)
        print(f"detector {name}: {1000 * (time.perf_counter() - start) / len(images):.0f} ms a picture")


def _core(face: Corners) -> Corners:
    """Return the inner 80 % of a true face: where exactly it ends is a matter of taste."""
    across, down = (face[2] - face[0]) // 10, (face[3] - face[1]) // 10
    return face[0] + across, face[1] + down, face[2] - across, face[3] - down


def _others(boxes: list[Box], size: tuple[int, int]) -> list[Corners]:
    return [place for _, place in people(boxes, size)[1:] if touches(place, size)]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
