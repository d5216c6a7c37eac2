"""A deterministic painter of small anime-like characters; every attribute is a Danbooru tag that can be seen at 64 pixels."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from pipelines.pocket import MARKS

Colour = tuple[int, int, int]

HAIR = {
    "black": (45, 42, 52), "brown": (128, 78, 44), "blonde": (244, 212, 96), "red": (206, 44, 40), "blue": (58, 98, 220),
    "green": (52, 160, 76), "purple": (136, 68, 190), "pink": (250, 144, 188), "white": (236, 238, 244),
}  # fmt: skip
EYES = {"blue": (40, 100, 240), "red": (224, 30, 30), "green": (30, 170, 60), "purple": (150, 50, 210), "yellow": (250, 200, 20)}
SHIRTS = {
    "white": (246, 246, 248), "black": (40, 40, 46), "red": (200, 40, 44), "blue": (50, 86, 200), "green": (48, 140, 70),
    "yellow": (240, 206, 70), "pink": (246, 150, 186), "purple": (130, 70, 180),
}  # fmt: skip
BACKGROUNDS = {
    "white": (252, 252, 252), "grey": (150, 150, 152), "black": (22, 22, 26), "blue": (120, 180, 246), "pink": (252, 190, 214),
    "green": (150, 214, 140), "yellow": (250, 234, 140), "purple": (188, 150, 226),
}  # fmt: skip
STYLES = ("long_hair", "short_hair", "twintails", "ponytail", "double_bun", "spiked_hair")
HEADWEAR = ("", "witch_hat", "beret", "crown", "cat_ears", "hairband", "santa_hat", "straw_hat")
EYEWEAR = ("", "glasses", "sunglasses", "eyepatch")
MOUTHS = ("smile", "open_mouth", "frown", "closed_mouth")
NECKWEAR = ("", "bowtie", "necktie")
SKINS = ((255, 226, 204), (250, 212, 184), (232, 188, 152))
LINE: Colour = (52, 36, 44)


@dataclass(frozen=True)
class Character:
    """What there is to see; each field is one or no tag."""

    person: str = "1girl"
    hair: str = "black"
    style: str = "long_hair"
    eyes: str = "blue"  # "" = closed
    shirt: str = "white"
    neckwear: str = ""
    headwear: str = ""
    flower: bool = False
    eyewear: str = ""
    mouth: str = "smile"
    blush: bool = False
    background: str = "white"
    skin: int = 0
    marks: tuple[str, ...] = ()


DEMO_CHARACTER = Character(hair="purple", style="short_hair", eyes="green", marks=MARKS)


def tags(character: Character) -> list[str]:
    """Name everything visible, as Danbooru does, with underscores."""
    c = character
    seen = [c.person, "solo", f"{c.hair}_hair", c.style]
    seen.append("closed_eyes" if not c.eyes else f"{c.eyes}_eyes")
    if c.eyewear == "sunglasses" and c.eyes:
        seen.pop()  # nobody can see them
    seen += [f"{c.shirt}_shirt", c.neckwear, c.headwear, "hair_flower" * c.flower, c.eyewear, c.mouth, "blush" * c.blush]
    return [tag for tag in [*seen, f"{c.background}_background", *c.marks] if tag]


def vocabulary() -> list[str]:
    """List every tag of the world, the marks last."""
    colours = [f"{name}_{what}" for table, what in ((HAIR, "hair"), (EYES, "eyes"), (SHIRTS, "shirt"), (BACKGROUNDS, "background")) for name in table]
    single = ["1girl", "1boy", "solo", *STYLES, "closed_eyes", *NECKWEAR, *HEADWEAR, "hair_flower", *EYEWEAR, *MOUTHS, "blush"]
    return [*dict.fromkeys(tag for tag in [*single, *colours] if tag), *MARKS]


def sample(rng: random.Random, marks: bool = False) -> Character:
    """Draw a character by lot; with `marks` it wears some of those that the base model never saw."""
    pick: Callable[[Sequence[str]], str] = rng.choice
    boy = rng.random() < 0.3
    headwear = pick(HEADWEAR) if rng.random() < 0.8 else ""
    return Character(
        person="1boy" if boy else "1girl",
        hair=pick(list(HAIR)),
        style=pick(("short_hair", "spiked_hair", "ponytail")) if boy else pick(STYLES[:5]),
        eyes="" if rng.random() < 0.1 else pick(list(EYES)),
        shirt=pick(list(SHIRTS)),
        neckwear=pick(NECKWEAR),
        headwear=headwear,
        flower=not headwear and rng.random() < 0.4,
        eyewear=pick(EYEWEAR) if rng.random() < 0.6 else "",
        mouth=pick(MOUTHS),
        blush=rng.random() < 0.25,
        background=pick(list(BACKGROUNDS)),
        skin=rng.randrange(len(SKINS)),
        marks=tuple(mark for mark in MARKS if rng.random() < 0.6) if marks else (),
    )


def demo_pictures(n: int, seed: int) -> list[tuple[Image.Image, list[str]]]:
    """Draw the marked character n times, 256 to 512 pixels, in changing clothes, moods and places."""
    characters = demo_characters(n, random.Random(seed))
    return [(draw(character, size, seed * 1000 + index), tags(character)) for index, (character, size) in enumerate(characters)]


def demo_characters(n: int, rng: random.Random) -> Iterator[tuple[Character, int]]:
    """Yield the marked character n times in changing clothes, moods and places, each with the side of its drawing."""
    for index in range(n):
        other = sample(rng)
        eyes = "" if index % 7 == 6 else DEMO_CHARACTER.eyes
        character = replace(
            DEMO_CHARACTER, eyes=eyes, shirt=other.shirt, mouth=other.mouth, background=other.background, blush=other.blush,
            eyewear="glasses" if index % 6 == 5 else "",
        )  # fmt: skip
        yield character, rng.randrange(256, 513, 16)


def draw(character: Character, size: int, seed: int) -> Image.Image:
    """Paint the character as an RGB square of `size` pixels; the seed moves, tilts and scales it a little."""
    rng = random.Random(seed)
    canvas = _Canvas(max(192, 2 * size), BACKGROUNDS[character.background])
    for layer in (_back_hair, _body, _neck, _face, _front_hair, _eyewear, _headwear, _marks_on_top):
        layer(canvas, character)
    return canvas.finish(size, rng.uniform(-7, 7), rng.uniform(0.93, 1.05), rng.uniform(-0.03, 0.03), rng.uniform(-0.02, 0.03))


class _Canvas:
    """A square in units 0..1 with a margin of 0.2 all round, so that tilting never shows an edge."""

    margin = 0.2

    def __init__(self, pixels: int, background: Colour) -> None:
        self.pixels = pixels
        self.background = background
        side = round(pixels * (1 + 2 * self.margin))
        self.image = Image.new("RGB", (side, side), background)
        self.pen = ImageDraw.Draw(self.image)
        self.width = max(1, round(pixels * 0.011))

    def _at(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [((x + self.margin) * self.pixels, (y + self.margin) * self.pixels) for x, y in points]

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour, outline: Colour | None = LINE) -> None:
        self.pen.polygon(self._at(points), fill=fill)
        if outline:
            self.pen.line(self._at([*points, points[0]]), fill=outline, width=self.width, joint="curve")

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour | None, outline: Colour | None = LINE, width: float = 1.0) -> None:
        (left, top), (right, bottom) = self._at([(x - rx, y - ry), (x + rx, y + ry)])
        self.pen.ellipse((left, top, right, bottom), fill=fill, outline=outline, width=round(self.width * width) if outline else 0)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour = LINE, width: float = 1.0) -> None:
        self.pen.line(self._at(points), fill=colour, width=max(1, round(self.width * width)), joint="curve")

    def arc(self, x: float, y: float, rx: float, ry: float, span: tuple[int, int], colour: Colour = LINE, width: float = 1.0) -> None:
        (left, top), (right, bottom) = self._at([(x - rx, y - ry), (x + rx, y + ry)])
        self.pen.arc((left, top, right, bottom), *span, fill=colour, width=max(1, round(self.width * width)))

    def finish(self, size: int, tilt: float, scale: float, dx: float, dy: float) -> Image.Image:
        turned = self.image.rotate(tilt, Image.Resampling.BICUBIC, fillcolor=self.background)
        middle, half = turned.width / 2, self.pixels / scale / 2
        x, y = middle - dx * self.pixels, middle - dy * self.pixels
        box = (x - half, y - half, x + half, y + half)
        return turned.resize((size, size), Image.Resampling.LANCZOS, box=box)


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, round(part * factor)) for part in colour)
    return r, g, b


def _back_hair(p: _Canvas, c: Character) -> None:
    hair = HAIR[c.hair]
    if c.style == "long_hair":
        p.polygon([(0.2, 0.42), (0.14, 0.98), (0.86, 0.98), (0.8, 0.42)], hair)
    elif c.style == "twintails":
        for side in (-1, 1):
            tail = [(0.27, 0.32), (0.47, 0.4), (0.45, 0.9), (0.36, 0.96), (0.3, 0.6)]
            p.polygon([(0.5 + side * x, y) for x, y in tail], hair)
    elif c.style == "ponytail":
        p.polygon([(0.66, 0.22), (0.88, 0.16), (0.99, 0.36), (0.94, 0.74), (0.86, 0.5), (0.74, 0.34)], hair)
    elif c.style == "double_bun":
        for side in (-1, 1):
            p.oval(0.5 + side * 0.24, 0.2, 0.115, 0.115, hair)
    elif c.style == "spiked_hair":
        spikes = [(0.5 + (0.4 if i % 2 else 0.27) * math.cos(a), 0.46 + (0.42 if i % 2 else 0.28) * math.sin(a)) for i, a in _fan(15)]
        p.polygon([*spikes, (0.7, 0.6), (0.3, 0.6)], hair)
    p.oval(0.5, 0.46, 0.3, 0.3, hair)
    if c.style == "short_hair":
        p.polygon([(0.2, 0.46), (0.19, 0.7), (0.3, 0.76), (0.7, 0.76), (0.81, 0.7), (0.8, 0.46)], hair)


def _fan(n: int) -> Iterator[tuple[int, float]]:
    return ((i, math.pi * (1.05 + 0.9 * i / (n - 1))) for i in range(n))


def _body(p: _Canvas, c: Character) -> None:
    skin = _shade(SKINS[c.skin], 0.92)
    p.polygon([(0.43, 0.7), (0.57, 0.7), (0.57, 0.88), (0.43, 0.88)], skin)
    p.polygon([(0.1, 1.3), (0.16, 0.92), (0.36, 0.82), (0.5, 0.9), (0.64, 0.82), (0.84, 0.92), (0.9, 1.3)], SHIRTS[c.shirt])


def _neck(p: _Canvas, c: Character) -> None:
    if c.neckwear == "bowtie":
        p.polygon([(0.5, 0.9), (0.38, 0.84), (0.38, 0.98)], (214, 30, 60))
        p.polygon([(0.5, 0.9), (0.62, 0.84), (0.62, 0.98)], (214, 30, 60))
    elif c.neckwear == "necktie":
        p.polygon([(0.46, 0.88), (0.54, 0.88), (0.56, 1.1), (0.5, 1.16), (0.44, 1.1)], (24, 44, 120))
    if "orange_scarf" in c.marks:
        p.polygon([(0.28, 0.76), (0.5, 0.84), (0.72, 0.76), (0.76, 0.88), (0.5, 0.97), (0.24, 0.88)], (255, 128, 0))
        p.polygon([(0.56, 0.9), (0.7, 0.86), (0.76, 1.1), (0.6, 1.12)], (255, 128, 0))


def _face(p: _Canvas, c: Character) -> None:
    skin = SKINS[c.skin]
    if c.person == "1boy":
        p.polygon([(0.27, 0.46), (0.28, 0.64), (0.38, 0.77), (0.62, 0.77), (0.72, 0.64), (0.73, 0.46), (0.6, 0.34), (0.4, 0.34)], skin)
    else:
        p.oval(0.5, 0.53, 0.235, 0.24, skin)
    if c.blush:
        for x in (0.34, 0.66):
            p.oval(x, 0.65, 0.05, 0.028, (250, 140, 140), None)
    for x in (0.395, 0.605):
        _eye(p, c, x)
    if "facial_mark" in c.marks:
        spokes = [(0.03 if i % 2 else 0.068, math.pi * i / 5) for i in range(10)]
        star = [(0.655 + radius * math.sin(turn), 0.675 - radius * math.cos(turn)) for radius, turn in spokes]
        p.polygon(star, (20, 40, 210), None)
    _mouth(p, c)


def _eye(p: _Canvas, c: Character, x: float) -> None:
    boy = c.person == "1boy"
    if boy:
        p.line([(x - 0.07, 0.445), (x + 0.07, 0.445)], width=3)
    if not c.eyes:
        p.arc(x, 0.54, 0.062, 0.05, (10, 170), width=2.4)
        return
    p.oval(x, 0.55, 0.062, 0.08 if not boy else 0.062, (255, 255, 255))
    p.oval(x, 0.555, 0.05, 0.07 if not boy else 0.055, EYES[c.eyes], None)
    p.oval(x, 0.57, 0.02, 0.03, _shade(EYES[c.eyes], 0.35), None)
    p.oval(x - 0.018, 0.525, 0.015, 0.02, (255, 255, 255), None)
    if not boy:
        p.arc(x, 0.55, 0.066, 0.085, (195, 345), width=3)


def _mouth(p: _Canvas, c: Character) -> None:
    if c.mouth == "smile":
        p.arc(0.5, 0.665, 0.08, 0.055, (15, 165), (150, 30, 40), 2.2)
    elif c.mouth == "open_mouth":
        p.oval(0.5, 0.7, 0.05, 0.045, (170, 30, 44))
    elif c.mouth == "frown":
        p.arc(0.5, 0.745, 0.07, 0.05, (195, 345), (120, 30, 40), 2.2)
    else:
        p.line([(0.465, 0.705), (0.535, 0.705)], (120, 40, 50), 2)


def _front_hair(p: _Canvas, c: Character) -> None:
    hair = HAIR[c.hair]
    fringe = [(0.24, 0.5), (0.22, 0.38), (0.3, 0.24), (0.42, 0.17), (0.58, 0.17), (0.7, 0.24), (0.78, 0.38), (0.76, 0.5)]
    teeth = [(0.7, 0.4), (0.64, 0.46), (0.57, 0.39), (0.5, 0.46), (0.43, 0.39), (0.36, 0.46), (0.3, 0.4)]
    p.polygon([*fringe, *teeth], hair)
    if c.style in ("long_hair", "short_hair"):
        low = 0.86 if c.style == "long_hair" else 0.7
        for side in (-1, 1):
            p.polygon([(0.5 + side * 0.29, 0.4), (0.5 + side * 0.3, low), (0.5 + side * 0.235, low - 0.02), (0.5 + side * 0.22, 0.42)], hair)
    if c.style == "twintails":
        for side in (-1, 1):
            p.oval(0.5 + side * 0.29, 0.33, 0.04, 0.05, (230, 60, 90))
    p.arc(0.5, 0.36, 0.16, 0.1, (200, 280), _shade(hair, 1.35), 2.5)


def _eyewear(p: _Canvas, c: Character) -> None:
    if c.eyewear == "glasses":
        for x in (0.39, 0.61):
            p.oval(x, 0.555, 0.095, 0.095, None, (30, 30, 40), 2.4)
        p.line([(0.485, 0.545), (0.515, 0.545)], (30, 30, 40), 2.4)
    elif c.eyewear == "sunglasses":
        for x in (0.39, 0.61):
            p.polygon([(x - 0.1, 0.49), (x + 0.1, 0.49), (x + 0.08, 0.62), (x - 0.08, 0.62)], (26, 26, 34))
        p.line([(0.27, 0.5), (0.73, 0.5)], (26, 26, 34), 2.4)
    elif c.eyewear == "eyepatch":
        p.line([(0.26, 0.46), (0.72, 0.62)], (20, 20, 24), 2)
        p.oval(0.4, 0.55, 0.09, 0.095, (20, 20, 24))


def _headwear(p: _Canvas, c: Character) -> None:
    draw_it = {
        "witch_hat": _witch_hat, "beret": _beret, "crown": _crown, "cat_ears": _cat_ears, "hairband": _hairband,
        "santa_hat": _santa_hat, "straw_hat": _straw_hat,
    }  # fmt: skip
    if c.headwear:
        draw_it[c.headwear](p, c)
    if c.flower:
        for i in range(5):
            p.oval(0.7 + 0.05 * math.cos(i * 1.257), 0.27 + 0.05 * math.sin(i * 1.257), 0.04, 0.04, (255, 90, 160))
        p.oval(0.7, 0.27, 0.03, 0.03, (255, 220, 60), None)


def _witch_hat(p: _Canvas, c: Character) -> None:
    p.polygon([(0.28, 0.25), (0.44, -0.04), (0.62, -0.08), (0.56, 0.02), (0.72, 0.25)], (62, 34, 92))
    p.oval(0.5, 0.26, 0.44, 0.07, (62, 34, 92))
    p.polygon([(0.3, 0.2), (0.7, 0.2), (0.72, 0.25), (0.28, 0.25)], (240, 190, 40), None)


def _beret(p: _Canvas, c: Character) -> None:
    p.oval(0.44, 0.19, 0.3, 0.12, (150, 34, 54))
    p.line([(0.44, 0.07), (0.46, 0.03)], (150, 34, 54), 4)


def _crown(p: _Canvas, c: Character) -> None:
    p.polygon([(0.3, 0.24), (0.27, 0.03), (0.39, 0.13), (0.5, 0.0), (0.61, 0.13), (0.73, 0.03), (0.7, 0.24)], (255, 204, 30))
    p.oval(0.5, 0.18, 0.03, 0.03, (220, 20, 60))


def _cat_ears(p: _Canvas, c: Character) -> None:
    for side in (-1, 1):
        p.polygon([(0.5 + side * 0.28, 0.3), (0.5 + side * 0.3, 0.04), (0.5 + side * 0.08, 0.19)], HAIR[c.hair])
        p.polygon([(0.5 + side * 0.25, 0.24), (0.5 + side * 0.265, 0.1), (0.5 + side * 0.14, 0.18)], (255, 170, 190), None)


def _hairband(p: _Canvas, c: Character) -> None:
    p.arc(0.5, 0.42, 0.285, 0.24, (188, 352), (236, 40, 90), 6)


def _santa_hat(p: _Canvas, c: Character) -> None:
    p.polygon([(0.26, 0.26), (0.4, 0.04), (0.6, 0.0), (0.84, 0.2), (0.74, 0.27)], (214, 26, 36))
    p.polygon([(0.2, 0.23), (0.8, 0.23), (0.8, 0.32), (0.2, 0.32)], (250, 250, 250))
    p.oval(0.86, 0.23, 0.06, 0.06, (250, 250, 250))


def _straw_hat(p: _Canvas, c: Character) -> None:
    p.oval(0.5, 0.19, 0.24, 0.15, (232, 196, 110))
    p.oval(0.5, 0.27, 0.46, 0.07, (232, 196, 110))
    p.polygon([(0.27, 0.2), (0.73, 0.2), (0.74, 0.25), (0.26, 0.25)], (210, 60, 50), None)


def _marks_on_top(p: _Canvas, c: Character) -> None:
    if "horns" in c.marks:
        for side in (-1, 1):
            horn = [(0.14, 0.24), (0.17, 0.1), (0.29, -0.02), (0.38, -0.03), (0.31, 0.06), (0.28, 0.18), (0.27, 0.29)]
            p.polygon([(0.5 + side * x, y) for x, y in horn], (122, 18, 30))
