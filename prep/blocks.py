"""Blocks: how coarsely a JPEG encoder has rounded a picture, read from its pixels, whatever file they lie in now and however it was cropped."""

from __future__ import annotations

import numpy as np
from PIL import Image

BLOCK = 8  # side of JPEG's blocks (ITU-T T.81, A.1.1)
LOOKED = 2**17  # pixels, about, on which the grid is looked for in each direction
STEEPEST = 32  # levels; a higher step is an edge of the picture, not of a block
# How much stronger than the others the grid's own phase must be, in both directions, for the rounding to be read at all: a filter that
# saves time. Measured: drawings 1.0 and less, 16 of 19 photographs less than 1.4 (in the other three no rounding is found); at quality 30
# photographs 1.43 and more, drawings 1.37 and more; at quality 10 both 3.2 and more.
GRID = 1.4
BLOCKS = 512  # with the most in them, at most, from which the rounding is read
# The lowest frequencies (row, column) and how coarsely quality 50 rounds them (T.81, table K.1).
STEPS = {(0, 1): 11, (1, 0): 12, (1, 1): 12, (0, 2): 10, (2, 0): 14, (1, 2): 14, (2, 1): 13}
FACTORS = np.geomspace(0.8, 8, 120).astype(np.float32)  # how many times coarser than quality 50, roughly 56 to 6, is tried
NOTHING = 0.25  # steps of quality 50; what was rounded to nothing says nothing
NEAR, AGREE = 0.16, 0.65  # share of a step within which a number is a multiple of it, and share of the numbers that must be
FEWEST, SAMPLE = 12, 160  # numbers from which a step is read, at least and at most


def blockiness(grey: Image.Image) -> float:
    """Say how many times more coarsely than at JPEG quality 50 a picture (mode L) was rounded; 0 = not noticeably.

    Quality 30 gives about 1.7, quality 10 gives 5. The grid is found by the steps that stand alone on every eighth line; the rounding by
    the largest step of which the blocks' DCT coefficients are multiples (Fan & de Queiroz 2003, doi:10.1109/TIP.2002.807361).
    """
    pixels = np.asarray(grey)
    if min(pixels.shape) < 3 * BLOCK:
        return 0.0
    step = -(-pixels.size // LOOKED)
    across = _phase(pixels[::step])
    down = _phase(np.ascontiguousarray(pixels[:, ::step].T)) if across is not None else None
    if across is None or down is None:
        return 0.0
    return _coarseness(_coefficients(pixels[down:, across:]))


def _phase(lines: np.ndarray) -> int | None:
    """Return the first column at which a block begins, 0 to 7; None if there is no grid. Lines (n, width), uint8."""
    steps = np.abs(np.diff(lines.astype(np.int16), axis=1))
    alone = steps[:, 1:-1] - np.maximum(steps[:, :-2], steps[:, 2:])
    alone[(alone < 0) | (steps[:, 1:-1] > STEEPEST)] = 0
    columns = alone.sum(axis=0, dtype=np.int64)  # the first is the step between columns 1 and 2
    phases = columns[: len(columns) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=0) / len(lines)
    best = int(phases.argmax())
    others = float(np.median(np.delete(phases, best)))
    return (best + 2) % BLOCK if phases[best] > GRID * (others + 0.05) else None


def _coefficients(pixels: np.ndarray) -> np.ndarray:
    """Return the DCT coefficients (n, 8, 8) of the blocks with the most in them; the first block begins at the first pixel."""
    rows, columns = (side // BLOCK for side in pixels.shape)
    blocks = pixels[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK).transpose(0, 2, 1, 3)
    step = max(1, round(np.sqrt(rows * columns / (4 * BLOCKS))))
    chosen = blocks[::step, ::step].reshape(-1, BLOCK, BLOCK).astype(np.float32)
    spread = chosen.std(axis=(1, 2))
    chosen = chosen[np.argsort(-spread, kind="stable")[:BLOCKS]]
    angles = np.outer(np.arange(BLOCK), 2 * np.arange(BLOCK) + 1) * np.pi / (2 * BLOCK)
    basis = (np.cos(angles) * np.sqrt(np.where(np.arange(BLOCK) == 0, 1, 2) / BLOCK).reshape(-1, 1)).astype(np.float32)
    return basis @ chosen @ basis.T


def _coarseness(coefficients: np.ndarray) -> float:
    """Return the median, over the lowest frequencies that tell, of the step that is found, in steps of quality 50; 0 if fewer than two do."""
    steps = [_step(np.abs(coefficients[:, row, column]) / usual) for (row, column), usual in STEPS.items()]
    found = [step for step in steps if step]
    return float(np.median(found)) if len(found) >= 2 else 0.0


def _step(sizes: np.ndarray) -> float:
    """Return the largest factor of which most numbers (in steps of quality 50) are multiples; 0 if there is none."""
    sizes = sizes[sizes > NOTHING]
    if len(sizes) < FEWEST:
        return 0.0
    ratios = sizes[None, :: -(-len(sizes) // SAMPLE)] / FACTORS[:, None]
    multiples = np.rint(ratios)
    agree = ((np.abs(ratios - multiples) < NEAR) & (multiples > 0)).mean(axis=1)
    fitting = FACTORS[agree >= AGREE]
    return float(fitting[-1]) if len(fitting) else 0.0
