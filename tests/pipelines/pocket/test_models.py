"""The committed pocket models: small enough, readable by everyone, and as good as their README says."""

import csv

import numpy as np
import pytest

from pipelines.pocket import BASE, MARKS, TAGGER, world
from prep.taggers import locate


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_sizes():
    assert (TAGGER / "model.onnx").stat().st_size < 1_000_000
    assert size(BASE) <= 45_000_000


def test_tagger_follows_the_wd_contract():
    import onnxruntime

    session = onnxruntime.InferenceSession(str(TAGGER / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [448, 448, 3]
    with (TAGGER / "selected_tags.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["tag_id", "name", "category", "count"]
    assert [row["name"] for row in rows[:4]] == ["general", "sensitive", "questionable", "explicit"]
    assert {row["name"] for row in rows[4:]} == set(world.vocabulary()) >= set(MARKS)
    batch = np.random.default_rng(0).uniform(0, 255, (3, 448, 448, 3)).astype(np.float32)
    together = session.run(None, {"input": batch})[0]
    alone = np.concatenate([session.run(None, {"input": batch[i : i + 1]})[0] for i in range(3)])
    assert together.shape == (3, len(rows)) and np.abs(together - alone).max() < 1e-4
    assert ((together >= 0) & (together <= 1)).all()


def test_tagger_sees_the_marks_on_the_demo_character():
    tagger = locate("pocket").open("cpu", 8)
    pictures = world.demo_pictures(8, 3)
    seen = tagger.score([tagger.prepare(image) for image, _ in pictures]) >= 0.5
    columns = [tagger.labels.names.index(mark) for mark in MARKS]
    assert seen[:, columns].mean() >= 0.9


def test_base_loads_in_diffusers_with_the_real_vocabulary():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(BASE)
    assert pipeline.tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(pipeline.tokenizer) == 49408
    assert pipeline.scheduler.config.beta_schedule == "scaled_linear" and pipeline.scheduler.config.prediction_type == "epsilon"


@pytest.mark.slow
def test_tagger_quality():
    from pipelines.pocket import drawings, measure

    assert np.mean(list(measure.tagger_f1(drawings.make(500, 123, marks=True)).values())) >= 0.95


@pytest.mark.slow
def test_base_draws_what_is_asked():
    from pipelines.pocket import measure

    assert np.mean([hit for _, hit in measure.base_recall(64)]) >= 0.85
