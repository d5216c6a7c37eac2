"""Line charts as SVG text, which a page shows without a script: axes, ticks, legend, a shaded band, and the numbers under the pointer."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from train.report_words import Say

Point = tuple[float, float | None]  # x, and y; None, or what is not finite, is a gap

WIDTH, HEIGHT = 560, 280  # the drawing's own units, pixels where it is shown in full
LEFT, RIGHT, TOP, BOTTOM = 80, 14, 22, 46  # room around the plot for the axes
ROOM, TALL = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
STRIPS = 120  # places along x at which the pointer finds numbers
ROWS = 25  # of the table that stands for a curve
OUTLIERS = 0.01  # share of a faint line's values, at either end, that may lie outside the plot
COLOURS = 6  # lines that differ by colour; the page's style gives --c0 to --c5 for light and dark

STYLE = """
:root{--c0:#0072b2;--c1:#b34700;--c2:#00795a;--c3:#a3377a;--c4:#80650a;--c5:#5b5f64}
@media(prefers-color-scheme:dark){:root{--c0:#6db9ec;--c1:#f0955a;--c2:#4cc9a4;--c3:#e59ac5;--c4:#e2c04d;--c5:#a9aeb4}}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:16px}
.chart{padding:.7rem .8rem .5rem;min-width:0}.chart figcaption{padding:0 0 .3rem;font-weight:600}
.chart>svg{width:100%;height:auto;display:block;overflow:visible}
.chart text{fill:var(--soft);font:12px system-ui,sans-serif;font-variant-numeric:tabular-nums}
@media(max-width:560px){.chart text{font-size:15px}}
.chart .grid{stroke:var(--line)}.chart .zero{stroke:var(--soft)}
.chart path{fill:none;stroke:var(--of);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.chart .faint{stroke-width:1;opacity:.4}.chart .dashed{stroke-dasharray:6 5;stroke-linecap:butt}.chart .dotted{stroke-dasharray:2 4}
.chart .band{fill:var(--of);stroke:none;opacity:.17}.chart circle{fill:var(--of)}.chart .mark{stroke:var(--ink);stroke-dasharray:3 3}
.chart .mark+text{fill:var(--ink)}.chart .hit{fill:transparent}.chart .hit:hover{fill:var(--ink);opacity:.09}
.key{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-weight:400;font-size:.8rem;color:var(--soft)}
.key svg{width:26px;height:8px;display:inline-block;margin-right:.35em;vertical-align:.1em}
.chart details{font-size:.8rem;margin-top:.2rem}.chart table{min-width:0;margin:.4rem 0}
"""

FARTHEST = 1e30  # no training number is, and scales of more than 60 powers of ten tell nothing


@dataclass(frozen=True)
class Line:
    """A curve, points by rising x; `look` is "", faint, dashed or dotted, perhaps with dots beside it."""

    name: str
    points: Sequence[Point]
    colour: int = 0
    look: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves over the steps of a run. The band is drawn in the colour of the first line."""

    title: str
    unit: str  # what y counts
    lines: Sequence[Line]
    band: Sequence[tuple[float, float, float]] = ()  # x, lowest, highest
    mark: tuple[float, str] | None = None  # a step, and what it is
    log: bool = False
    limits: tuple[float, float] = (-math.inf, math.inf)  # what lies beyond is cut off
    epochs: Mapping[float, int] = field(default_factory=dict)  # of steps, to be told beside them


@dataclass(frozen=True)
class Axis:
    """From a value to its place between 0 and 1."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        if self.log:
            return (math.log(max(value, 1e-300)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else even_ticks(self.low, self.high)


def draw(chart: Chart, say: Say = str) -> str:
    """Return the chart as HTML: a figure with its legend, the drawing, and a table of the numbers; "" if there is nothing to draw."""
    title = say(chart.title)
    lines = [Line(_named(line, say), cleaned(line.points, chart.log), line.colour % COLOURS, line.look) for line in chart.lines]
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    if not lines:
        return ""
    xs = sorted({x for line in lines for x, _ in line.points})
    across = Axis(xs[0], xs[-1]) if xs[0] < xs[-1] else Axis(xs[0] - 1, xs[0] + 1)
    band = [(x, low, high) for x, low, high in chart.band if math.isfinite(low) and math.isfinite(high)]
    up = y_axis(lines, band, chart)
    paths = [f'<path class="{line.look}" style="--of:var(--c{line.colour})" d="{_path(line.points, across, up)}"/>' for line in lines]
    inner = _band(band, lines[0].colour, across, up) + "".join(paths)
    # A drawing inside the drawing cuts off what leaves the plot.
    drawing = _axes(across, up, say(chart.unit), say("step"))
    drawing += f'<svg x="{LEFT}" y="{TOP}" width="{ROOM}" height="{TALL}" viewBox="0 0 {ROOM} {TALL}">{inner}</svg>'
    drawing += "".join(_dots(lines, across, up)) + _mark(chart.mark, across) + "".join(_strips(lines, xs, across, _Steps(chart.epochs, say)))
    return (
        f'<figure class="chart"><figcaption>{escape(title)}{_legend(lines, say("logarithmic") if chart.log else "")}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken(title, lines, say))}">{drawing}</svg>'
        f"<details><summary>{say('as numbers')}</summary>{_table(lines, xs, _Steps(chart.epochs, say))}</details></figure>"
    )


def _named(line: Line, say: Say) -> str:
    """Return the name of a line, which may be the names of several parts."""
    return ", ".join(map(say, line.name.split(", ")))


def cleaned(points: Sequence[Point], log: bool) -> list[Point]:
    """Leave gaps where there is no number, or none that the scale can show; numbers beyond FARTHEST are drawn there."""

    def shown(y: float | None) -> float | None:
        if y is None or not math.isfinite(y) or (log and y <= 0):
            return None
        return max(y, 1 / FARTHEST) if log and y < 1 else max(-FARTHEST, min(FARTHEST, y))

    return [(x, shown(y)) for x, y in points]


def y_axis(lines: Sequence[Line], band: Sequence[tuple[float, float, float]], chart: Chart) -> Axis:
    """Choose the range that shows all but the outliers of faint lines, with some air, within the chart's limits."""
    values = [edge for _, low, high in band for edge in (low, high) if edge > 0 or not chart.log]
    for line in lines:
        found = sorted(y for _, y in line.points if y is not None)
        cut = int(len(found) * OUTLIERS) if "faint" in line.look and len(lines) > 1 else 0
        values += [found[cut], found[-1 - cut]]
    low, high = (min(max(edge(values), chart.limits[0]), chart.limits[1]) for edge in (min, max))
    if chart.log:
        air = max((high / low) ** 0.05, 1.1) if low < high else 2.0
        return Axis(low / air, high * air, log=True)
    air = (high - low) * 0.06 if low < high else abs(low) * 0.1 or 1.0
    # What is near 0 at one end begins there: a bar of air under 0 would say that a loss may be negative.
    return Axis(0.0 if 0 <= low < 0.3 * high else low - air, high + air)


def even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two numbers: multiples of 1, 2 or 5 times a power of ten."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * step) <= most)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return powers of ten between two numbers over 0, every second or third of many, with 2 and 5 between few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / most))
    factors: tuple[int, ...] = (1, 2, 5) if last - first <= 3 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    found = [value for value in found if low <= value <= high]
    return found if len(found) > 1 else [value for value in even_ticks(low, high) if value > 0]


def number(value: float | None) -> str:
    """Write a number in three digits, 0 as 0, and a dash for none."""
    return "–" if value is None else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def spoken(title: str, lines: Sequence[Line], say: Say = str) -> str:
    """Say in words what the curves do, for those who do not see them."""
    told = []
    for line in lines:
        found = [(y, x) for x, y in line.points if y is not None]
        (low, at_low), (high, at_high) = min(found), max(found)
        words = say("{name} from {first} to {last}, lowest {low} at step {at_low}, highest {high} at step {at_high}")
        ends = {"first": number(found[0][0]), "last": number(found[-1][0])}
        told.append(words.format(name=line.name, low=number(low), at_low=f"{at_low:g}", high=number(high), at_high=f"{at_high:g}", **ends))
    return f"{title}: {'; '.join(told)}"


def _axes(across: Axis, up: Axis, unit: str, along: str) -> str:
    drawn = []
    for tick in up.ticks():
        y = TOP + TALL * (1 - up.place(tick))
        line = "zero" if abs(tick) < 1e-12 else "grid"
        drawn.append(f'<line class="{line}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{number(tick if abs(tick) > 1e-12 else 0.0)}</text>')
    for tick in even_ticks(across.low, across.high):
        if tick == round(tick):
            x = LEFT + ROOM * across.place(tick)
            drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + TALL}" y2="{TOP + TALL + 4}"/>')
            drawn.append(f'<text x="{x:.1f}" y="{TOP + TALL + 19}" text-anchor="middle">{tick:.0f}</text>')
    drawn.append(f'<text x="{LEFT + ROOM / 2}" y="{HEIGHT - 6}" text-anchor="middle">{along}</text>')
    middle = TOP + TALL / 2
    drawn.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(unit)}</text>')
    return "".join(drawn)


def _band(band: Sequence[tuple[float, float, float]], colour: int, across: Axis, up: Axis) -> str:
    edges = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
    points = " ".join(f"{ROOM * across.place(x):.1f},{TALL * (1 - up.place(y)):.1f}" for x, y in edges)
    return f'<polygon class="band" style="--of:var(--c{colour})" points="{points}"/>' if band else ""


def _path(points: Sequence[Point], across: Axis, up: Axis) -> str:
    """Return a path with a gap where there is no number; a point that stands alone becomes a short stroke."""
    words, drawing = [], False
    for x, y in points:
        if y is not None:
            words.append(f"{'L' if drawing else 'M'}{ROOM * across.place(x):.1f} {TALL * (1 - up.place(y)):.1f}{'' if drawing else 'h.01'}")
        drawing = y is not None
    return "".join(words)


def _dots(lines: Sequence[Line], across: Axis, up: Axis) -> Iterator[str]:
    for line in lines:
        for x, y in line.points if "dots" in line.look else ():
            if y is not None and up.low <= y <= up.high:
                at = f'cx="{LEFT + ROOM * across.place(x):.1f}" cy="{TOP + TALL * (1 - up.place(y)):.1f}"'
                yield f'<circle {at} r="3" style="--of:var(--c{line.colour})"/>'


def _mark(mark: tuple[float, str] | None, across: Axis) -> str:
    if mark is None or not across.low <= mark[0] <= across.high:
        return ""
    place = across.place(mark[0])
    x, side, gap = LEFT + ROOM * place, "end" if place > 0.5 else "start", 4 if place > 0.5 else -4
    line = f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + TALL}"/>'
    return f'{line}<text x="{x + gap:.1f}" y="{TOP - 8}" text-anchor="{side}">{escape(mark[1])}</text>'


def _strips(lines: Sequence[Line], xs: Sequence[float], across: Axis, steps: _Steps) -> Iterator[str]:
    """Yield upright strips that say the numbers of all lines where the pointer is."""
    shown = thinned(xs, STRIPS)
    places = [LEFT + ROOM * across.place(x) for x in shown]
    edges = [LEFT, *((a + b) / 2 for a, b in itertools.pairwise(places)), LEFT + ROOM]
    for x, left, right in zip(shown, edges[:-1], edges[1:], strict=True):
        told = "\n".join([steps.told(x), *(f"{line.name} {number(nearest(line.points, x))}" for line in lines)])
        yield f'<rect class="hit" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{TALL}"><title>{escape(told)}</title></rect>'


@dataclass(frozen=True)
class _Steps:
    """Tells steps with their epochs."""

    epochs: Mapping[float, int]
    say: Say

    def told(self, x: float) -> str:
        return f"{self.say('step')} {x:g}" + (f", {self.say('epoch')} {self.epochs[x]}" if x in self.epochs else "")


def nearest(points: Sequence[Point], x: float) -> float | None:
    """Return the value of the point that is nearest to x."""
    after = bisect_left(points, x, key=lambda point: point[0])
    return min(points[max(0, after - 1) : after + 1], key=lambda point: abs(point[0] - x))[1]


def thinned(values: Sequence[float], most: int) -> list[float]:
    """Take at most so many, evenly, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(n * (len(values) - 1) / (most - 1))] for n in range(most)]


def _legend(lines: Sequence[Line], scale: str) -> str:
    keys = "".join(
        f'<span><svg viewBox="0 0 26 8" aria-hidden="true"><path class="{line.look}" style="--of:var(--c{line.colour})" d="M1 4H25"/></svg>'
        f"{escape(line.name)}</span>"
        for line in lines
    )
    return f'<span class="key">{keys}{f"<span>{scale}</span>" if scale else ""}</span>'


def _table(lines: Sequence[Line], xs: Sequence[float], steps: _Steps) -> str:
    head = "".join(f'<th scope="col">{escape(line.name)}</th>' for line in lines)
    rows = "".join(
        f'<tr><th scope="row">{steps.told(x)}</th>{"".join(f"<td>{number(nearest(line.points, x))}</td>" for line in lines)}</tr>'
        for x in thinned(xs, ROWS)
    )
    return f'<table><tr><th scope="col">{steps.say("step")}</th>{head}</tr>{rows}</table>'
