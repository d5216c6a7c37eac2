"""YOLO: every layout is read alike, boxes come out in the picture's own pixels, and what is no detector is said so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.boxes import corners
from prep.detectors import DETECTORS, DetectorRow, detector, locate, names_of
from prep.detectors.yolo import Yolo, corners_of, nms
from prep.options import UserError
from tests.prep.detectors.yolo_models import make_detector, make_size_teller

ROW = DetectorRow("test", threshold=0.3, iou=0.5)

# Two overlapping cats and a dog, in pixels of an input of 64 x 64.
CENTRES = np.array([[16, 16, 16, 16], [17, 17, 16, 16], [48, 40, 20, 40]], np.float32)
SCORES = np.array([[0.9, 0.1], [0.8, 0.0], [0.2, 0.7]], np.float32)
FOUND = [("cat", 0.9, (16, 8, 48, 24)), ("dog", 0.7, (76, 20, 116, 60))]  # in a picture of 128 x 64


def rows(boxes: list) -> list[tuple[str, float, tuple[int, int, int, int]]]:
    return [(box.label, round(box.score, 3), corners(box)) for box in boxes]


def test_helpers_do_what_the_reference_says() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], float)
    assert nms(boxes, np.array([0.9, 0.8, 0.7]), 0.5) == [0, 2]
    assert corners_of(np.array([[10, 10, 20, 20]], float)).tolist() == [[0, 0, 20, 20]]
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5) == []


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4, st.floats(0, 1)), max_size=25), st.floats(0.1, 0.9))
def test_what_is_kept_overlaps_no_more_than_allowed_and_the_rest_does(found: list, iou: float) -> None:
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in found], float).reshape(-1, 4)
    scores = np.array([row[4] for row in found])

    def overlap(a: int, b: int) -> float:
        low, high = np.maximum(boxes[a, :2], boxes[b, :2]), np.minimum(boxes[a, 2:], boxes[b, 2:]) + 1
        shared = np.clip(high - low, 0, None).prod()
        return shared / (sum((boxes[i, 2:] - boxes[i, :2] + 1).prod() for i in (a, b)) - shared)

    kept = nms(boxes, scores, iou)
    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    assert all(overlap(a, b) <= iou for a in kept for b in kept if a != b)
    assert all(any(overlap(a, b) > iou and scores[b] >= scores[a] for b in kept) for a in set(range(len(found))) - set(kept))


@pytest.mark.parametrize("layout", ["columns", "end to end", "shares"])
def test_every_layout_gives_the_same_boxes(tmp_path: Path, layout: str) -> None:
    ends = np.concatenate([corners_of(CENTRES), SCORES.max(axis=1, keepdims=True), SCORES.argmax(axis=1)[:, None]], axis=1)
    output = {
        "columns": np.concatenate([CENTRES, SCORES], axis=1).T,
        "end to end": ends,
        "shares": np.concatenate([CENTRES / 64, SCORES], axis=1),
    }[layout]
    find = Yolo(make_detector(tmp_path / "a.onnx", output, ["cat", "dog"]), ROW, "cpu")
    assert rows(find([Image.new("RGB", (128, 64))])[0]) == FOUND  # stretched, so x is scaled by two and y is not


def test_one_class_and_a_label_of_the_rows_own(tmp_path: Path) -> None:
    output = np.array([[32, 32, 100, 10, 0.6]]).T
    find = Yolo(make_detector(tmp_path / "a.onnx", output, ["halfbody"]), DetectorRow("", label="half", threshold=0.5), "cpu")
    assert rows(find([Image.new("RGB", (64, 64))])[0]) == [("half", 0.6, (0, 27, 64, 37))]  # clipped to the picture


def test_nothing_over_the_threshold_is_nothing(tmp_path: Path) -> None:
    for output in (np.array([[32, 32, 8, 8, 0.3]]).T, np.zeros((5, 0))):
        assert Yolo(make_detector(tmp_path / "a.onnx", output, ["x"]), ROW, "cpu")([Image.new("RGB", (9, 9))]) == [[]]


@pytest.mark.parametrize(("size", "seen"), [((1000, 500), (640, 320)), ((100, 50), (128, 64)), ((3, 2000), (32, 640)), ((640, 640), (640, 640))])
def test_a_dynamic_model_sees_the_picture_fitted_and_rounded_up_to_32(tmp_path: Path, size: tuple[int, int], seen: tuple[int, int]) -> None:
    find = Yolo(make_size_teller(tmp_path / "a.onnx"), ROW, "cpu")
    assert find._size(Image.new("RGB", size)) == seen
    (box,) = find([Image.new("RGB", size, (128, 128, 128))])[0]
    assert corners(box) == (0, 0, *size) and box.score == pytest.approx(128 / 255, abs=1e-3)  # all of it, and pixels are 0..1


def test_a_local_file_or_folder_is_a_detector(tmp_path: Path) -> None:
    path = make_detector(tmp_path / "model.onnx", np.array([[32, 32, 16, 16, 0.9]]).T, ["robot"])
    image = Image.new("RGB", (64, 64))
    assert detector(str(path), "cpu")([image]) == detector(str(tmp_path), "cpu")([image])
    assert rows(detector(str(path), "cpu")([image])[0]) == [("robot", 0.9, (24, 24, 40, 40))]
    assert names_of(f"face, {path}") == ["face", str(path)] and names_of(" ") == ["none"]


def test_hub_rows_are_run_by_their_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = {(row.repo, row.file): name for name, row in DETECTORS.items() if row.repo}

    def fetched(repo: str, file: str, revision: str) -> str:  # the hub itself cannot be reached from here
        return str(make_detector(tmp_path / hub[repo, file] / "model.onnx", np.array([[32, 32, 16, 16, 0.55]]).T, ["whatever"]))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetched)
    for name in hub.values():
        (box,) = detector.__wrapped__(name, "cpu")([Image.new("RGB", (64, 64))])[0]
        assert (box.label, corners(box)) == (name.removeprefix("anime-"), (24, 24, 40, 40))


def test_mistakes_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    good = np.array([[32, 32, 16, 16, 0.9]]).T
    nameless = make_detector(tmp_path / "nameless.onnx", good, [])
    odd = make_detector(tmp_path / "odd.onnx", np.zeros((9, 7)), ["a"])
    flat = make_detector(tmp_path / "flat.onnx", good, ["a"], size=(64,))  # type: ignore[arg-type]
    for path, words in ((tmp_path / "text.onnx", "cannot be loaded"), (nameless, "layout"), (odd, "layout"), (flat, "not a YOLO detector")):
        with pytest.raises(UserError, match=words) as caught:
            Yolo(path, ROW, "cpu")([Image.new("RGB", (64, 64))])
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no detector model"):
        locate(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="neither a detector nor a model file"):
        names_of("face, fase")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot fetch the detector anime-person .*go online once") as caught:
        locate("anime-person")
    assert "\n" not in str(caught.value)
