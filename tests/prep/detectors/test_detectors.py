"""Detectors: every row keeps the contract; the face row finds faces."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from prep.detectors import DETECTORS, detector


def astronaut() -> Image.Image:
    return Image.fromarray(pytest.importorskip("skimage.data").astronaut())


def overlap(box: tuple[int, int, int, int], truth: tuple[int, int, int, int]) -> float:
    """Return intersection over union."""
    width, height = min(box[2], truth[2]) - max(box[0], truth[0]), min(box[3], truth[3]) - max(box[1], truth[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, truth)) - shared)


@pytest.mark.parametrize("name", [name for name, row in DETECTORS.items() if not row.repo])
def test_contract(name: str) -> None:
    find = detector(name)
    images = [astronaut(), Image.new("RGB", (300, 40)), astronaut().crop((100, 0, 400, 500)), Image.new("RGB", (1, 1))]
    together = find(images)
    assert together == [find([image])[0] for image in images]
    assert find([]) == []
    for image, boxes in zip(images, together, strict=True):
        assert [box.score for box in boxes] == sorted((box.score for box in boxes), reverse=True)
        for box in boxes:
            assert 0 <= box.x0 < box.x1 <= image.width
            assert 0 <= box.y0 < box.y1 <= image.height
            assert 0 <= box.score <= 1


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_face_is_found_at_its_place(scale: float) -> None:
    image = astronaut().resize((round(512 * scale),) * 2)
    (box,) = detector("face")([image])[0]
    truth = (177, 70, 272, 175)  # measured by hand in the picture of 512 x 512
    assert overlap((box.x0, box.y0, box.x1, box.y1), tuple(round(value * scale) for value in truth)) > 0.6  # type: ignore[arg-type]


def test_two_faces_are_two_boxes() -> None:
    face = astronaut().crop((120, 20, 330, 230))
    both = Image.new("RGB", (420, 210))
    both.paste(face, (0, 0))
    both.paste(face, (210, 0))
    left, right = sorted(detector("face")([both])[0], key=lambda box: box.x0)
    assert left.x1 <= 210 <= right.x0


def test_nothing_is_found_in_flat_and_noisy_pictures() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    assert detector("face")([Image.new("RGB", (200, 200), "white"), noise]) == [[], []]


def test_opencv_is_imported_on_use_only() -> None:
    code = "import sys, prep.detectors.face, prep.crop, prep.subject; sys.exit(bool({'cv2', 'torch', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
