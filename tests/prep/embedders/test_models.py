"""CCIP, face models and the tagger's traits keep their contracts, on models made here with the inputs of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.detectors import detector
from prep.embedders import embedder
from prep.embedders.faces import TEMPLATE, aligned, fit, landmarks
from prep.embedders.looks import FaceLook
from prep.embedders.traits import Traits, places
from prep.options import UserError
from prep.taggers import locate
from tests.prep.embedders.models import make_ccip, make_faces, make_tagger

CLIP = (np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711]))


def astronaut() -> Image.Image:
    return Image.fromarray(pytest.importorskip("skimage.data").astronaut())


def coloured(*colours: tuple[int, int, int]) -> list[Image.Image]:
    return [Image.new("RGB", (40 + index, 40 + index), colour) for index, colour in enumerate(colours)]


def test_ccip_sees_the_picture_as_clip_does(tmp_path: Path) -> None:
    model = embedder(str(make_ccip(tmp_path)), "cpu")
    (vector,) = model.embed(coloured((200, 30, 90)))
    weights = np.random.default_rng(0).normal(size=(3, 768)).astype(np.float32)
    assert vector.shape == (768,) and vector.dtype == np.float32
    assert np.allclose(vector, ((np.array([200, 30, 90]) / 255 - CLIP[0]) / CLIP[1]) @ weights, atol=1e-2)


def test_ccip_tells_who_is_far_by_its_own_measure_and_limit(tmp_path: Path) -> None:
    model = embedder(str(make_ccip(tmp_path)), "cpu")
    images = coloured(*[(200, 30, 90 + index) for index in range(6)], (20, 200, 40))
    vectors = np.stack(model.embed(images))
    judged = model.judge(vectors)
    assert [row.far for row in judged] == [False] * 6 + [True]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert judged[6].distance == pytest.approx(np.median((1 - unit[6] @ unit[:6].T) / 2), abs=1e-4)
    (tmp_path / "metrics.json").write_text(json.dumps({"threshold": 0.99}), encoding="utf-8")
    assert not any(row.far for row in embedder(str(tmp_path), "cpu").judge(vectors))
    assert all(row.far for row in model.judge(vectors, -1.0))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is not CCIP"):
        embedder(str(make_ccip(tmp_path, side=224)), "cpu").embed(coloured((1, 2, 3)))
    with pytest.raises(UserError, match="it is no face model of a known kind"):
        embedder(str(make_faces(tmp_path / "a.onnx", side=160)), "cpu").embed([astronaut()])
    (tmp_path / "metrics.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="names no threshold"):
        embedder(str(tmp_path), "cpu")


@pytest.mark.parametrize("change", ["as it is", "turned", "large", "cut close"])
def test_a_face_is_brought_to_the_same_place(change: str) -> None:
    image = astronaut()
    changed = {
        "as it is": image,
        "turned": image.rotate(15, Image.Resampling.BICUBIC),
        "large": image.resize((1500, 1500)),
        "cut close": image.crop((150, 40, 300, 200)),
    }[change]
    face = aligned(changed, detector("face")([changed])[0][0])
    assert face.size == (112, 112)
    reference = aligned(image, detector("face")([image])[0][0])
    # The face alone, as there is nothing at the rims of a cut picture; and not to the pixel.
    a, b = (np.asarray(one.crop((24, 24, 88, 104)).reduce(4), np.float32).ravel() for one in (face, reference))
    assert np.corrcoef(a, b)[0, 1] > 0.8  # measured: 0.86-0.99


def test_landmarks_lie_where_the_eyes_are() -> None:
    image = astronaut()
    found = landmarks(image, detector("face")([image])[0][0])
    assert np.abs(found - [(206, 102), (247, 103), (226, 125), (225, 147)]).max() < 8  # seen by eye in the picture


def test_the_fit_turns_scales_and_moves() -> None:
    turn = np.array([[0.6, -0.8], [0.8, 0.6]]) * 1.7
    matrix = fit(TEMPLATE, TEMPLATE @ turn.T + (5, -3))
    assert np.allclose(matrix, np.column_stack([turn, (5, -3)]), atol=1e-6)


@pytest.mark.parametrize("length, mean, scale", [(512, 0.0, 1.0), (128, 127.5, 127.5)])
def test_faces_of_one_person_are_near_and_others_far(tmp_path: Path, length: int, mean: float, scale: float) -> None:
    """Of a model file of one's own the length tells which inputs it wants: ArcFace -1..1, SFace 0..255."""
    model = embedder(str(make_faces(tmp_path / "face.onnx", length, mean=mean, scale=scale)), "cpu")
    image = astronaut()
    man = Image.fromarray(pytest.importorskip("skimage.data").camera()).convert("RGB")
    same = [image, image.rotate(8), image.crop((100, 0, 400, 300)), image.resize((300, 300)), image.rotate(-8), image.crop((60, 0, 500, 400))]
    vectors = model.embed([*same, man, Image.new("RGB", (200, 200))])
    assert vectors[-1].size == 0  # no face, nothing to go by
    assert all(vector.shape == (length,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in vectors[:-1])
    judged = model.judge(np.stack(vectors[:-1]), 0.25)
    assert [row.far for row in judged] == [False] * 6 + [True]


def test_traits_are_those_of_the_character_only() -> None:
    labels = locate("pocket").open("cpu", 1).labels
    found = {kind: {labels.names[place] for place in at} for kind, at in places(labels).items()}
    assert found["eye colour"] == {f"{colour}_eyes" for colour in ("blue", "red", "green", "purple", "yellow")}
    assert found["hair style"] == {"long_hair", "short_hair", "twintails", "ponytail", "double_bun", "spiked_hair"}
    assert found["marks"] == {"horns", "facial_mark"}
    kept = set().union(*found.values())
    assert not kept & {"smile", "blush", "closed_eyes", "white_shirt", "witch_hat", "cat_ears", "glasses", "white_background", "solo"}


def test_the_tagger_says_whether_there_is_anybody_if_it_can(tmp_path: Path) -> None:
    own = embedder("tagger", "cpu", str(make_tagger(tmp_path)))
    pocket = embedder("tagger", "cpu")
    assert isinstance(own, Traits) and isinstance(pocket, Traits)
    blue, green = coloured((0, 0, 255), (0, 255, 0))
    assert [own.somebody(vector) for vector in own.embed([blue, green])] == [True, False]
    assert [pocket.somebody(vector) for vector in pocket.embed([blue, green])] == [None, None]  # it knows no picture without people


def test_faces_that_fill_the_picture_or_are_small_are_seen() -> None:
    image = astronaut()
    box = detector("face")([image])[0][0]
    close = image.crop((box.x0, box.y0, box.x1, box.y1))
    flat = Image.new("RGB", (300, 200), "grey")
    assert [bool(found[0]) for found in FaceLook().embed([image, close, flat])] == [True, True, False]
