"""The arithmetic of learning: what it warns of before a run is what short runs then do, and it is silent where they learn."""

import json
import random
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from pipelines.pocket import CLASS_PROMPT, world
from prep.captions import join, to_words
from prep.options import UserError
from tests.train.test_diagnose import ready
from train.config import TrainConfig
from train.families import load_model
from train.learning import HALF_STEP, NOTHING, after_training, base_modules, by_block, learning_arithmetic, relative_norms
from train.per_picture import measure_of, picture_report
from train.run import prepare, start, train
from train.runtime import Runtime, StopSignals
from train.state import Job, TrainState
from train.validate import alone

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(job: Job, state: TrainState) -> list[str]:
    with StopSignals() as signals:
        train(job, state, signals)
    return after_training(job, state)


def test_usual_settings_are_not_warned_of(tiny_base: Path, tiny_tree: Path) -> None:
    for settings in ({}, {"learning_rate": 1e-4, "num_epochs": 60}, {"optimizer": "sgdnesterov", "learning_rate": 1.0}, {"network_algo": "loha"}):
        assert learning_arithmetic(*ready(tiny_base, tiny_tree, **settings)) == [], settings


def test_an_alpha_that_lets_updates_vanish(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree, learning_rate=1e-4, network_dim=128, network_alpha=0.01)
    lines = learning_arithmetic(job, state)
    assert len(lines) == 2 and all("cannot learn" in line and "alpha 0.01 with dim 128" in line for line in lines)
    assert "rounds to zero in fp16" in lines[0] and "raise network_alpha, to 128" in lines[0]
    (line,) = trained(job, state)
    assert "has learned next to nothing" in line and "unet_down_blocks_0" in line and "te " in line
    modules = base_modules(job)
    for name, layer in state.network.layers.items():
        weight = modules[name].weight
        merged: Any = (weight.double() + layer.weight_update().double()).half()  # type: ignore[operator]
        assert (merged != weight.half()).float().mean() < 0.05


def test_a_rate_of_10_is_warned_of(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree, learning_rate=10.0)
    lines = learning_arithmetic(job, state)
    assert len(lines) == 2 and all("will fall apart" in line and "lower learning_rate to 0.0001" in line for line in lines)


def test_a_rate_of_0_is_said_of_its_part(tiny_base: Path, tiny_tree: Path) -> None:
    (line,) = learning_arithmetic(*ready(tiny_base, tiny_tree, text_encoder_lr=0.0))
    assert "the rate of the text encoder is 0" in line and "train_text_encoder = false" in line


def test_blocks_are_named_and_no_layer_is_lost(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    norms = relative_norms(job, state.network)
    assert set(by_block(norms)) == {"te", "unet_down_blocks_0", "unet_mid_block", "unet_up_blocks_1"} and set(norms) == set(state.network.layers)
    assert by_block({"lora_te1_a": 1.0, "lora_te2_a": 2.0, "lora_unet_input_blocks_4_1_x": 3.0, "other": 4.0}) == {
        "te1": 1.0, "te2": 2.0, "unet_input_blocks_4": 3.0, "other": 4.0,
    }  # fmt: skip


def drawn_tree(root: Path, wrong: int = 0) -> None:
    """Draw 14 pictures of the demo's character, `wrong` of others with its keyword and a class."""
    rng = random.Random(5)
    others = [world.sample(rng) for _ in range(wrong + 14)]
    good = [("2_mira", f"good{n}", picture, tags, "mira, ") for n, (picture, tags) in enumerate(world.demo_pictures(14, 3))]
    bad = [("2_mira", f"wrong{n}", world.draw(c, 256, n), world.tags(c), "mira, ") for n, c in enumerate(others[:wrong])]
    for folder, name, picture, tags, keyword in [*good, *bad]:
        put(root / "tree" / "img" / folder / name, picture, keyword + join(map(to_words, tags)))
    for n, c in enumerate(others[wrong:]):
        put(root / "tree" / "reg" / "1_1girl" / f"{n}", world.draw(c, 256, 100 + n), join(map(to_words, world.tags(c))))
    (root / "tree" / "manifest.json").write_text(json.dumps({}), encoding="utf-8")


def put(place: Path, picture: Any, caption: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((64, 64)).save(place.with_suffix(".png"))
    place.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def pocket(root: Path, **settings: Any) -> tuple[Job, TrainState]:
    table = {
        "train_batch_size": 8, "num_epochs": 999, "network_dim": 16, "network_alpha": 16.0, "sample_steps": 0, "min_bucket_reso": 64,
        "validation_split": 0.0, "lr_scheduler": "constant", "max_train_steps": 20,
    }  # fmt: skip
    project = {"base": "pocket", "keyword": "mira", "class": CLASS_PROMPT, "name": "mine"}
    config = TrainConfig.load({"project": project, "train": {**table, **settings}}, {}).at(root)
    job = prepare(config, Runtime.choose("no"), load_model("pocket"), {})
    return job, start(job, None)


def gained(job: Job, state: TrainState) -> float:
    """Return the share of the base's loss that is gone on four training pictures."""
    pictures = [picture for picture in job.data.pictures if not picture.folder.is_reg][:4]
    captions, measure = [picture.caption for picture in pictures], measure_of(job)
    with alone(state):
        base = measure(pictures, captions).mean()
    return float(1 - measure(pictures, captions).mean() / base)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "before", "after"),
    [(1e-6, "cannot learn", "next to nothing"), (1e-4, "", ""), (1e-2, "", ""), (3e-2, "will fall apart", "fell apart")],
)
def test_what_is_foretold_is_what_a_run_does(tmp_path: Path, rate: float, before: str, after: str) -> None:
    drawn_tree(tmp_path)
    job, state = pocket(tmp_path, learning_rate=rate)
    foretold, found = learning_arithmetic(job, state), trained(job, state)
    assert all(before in line for line in foretold) and bool(foretold) == bool(before)
    assert all(after in line for line in found) and bool(found) == bool(after)
    share = gained(job, state)
    assert {"cannot learn": share < 1e-3, "will fall apart": share < -1, "": share > 0.02}[before]
    middle = median(relative_norms(job, state.network).values())
    assert (middle < NOTHING) == (before == "cannot learn") and (middle > HALF_STEP) == (before != "cannot learn")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0, 2])
def test_pictures_of_another_character_are_named(tmp_path: Path, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.per_picture.AFFORDED", 1.0)  # so short a run would measure only every second picture
    drawn_tree(tmp_path, wrong)
    job, state = pocket(tmp_path, learning_rate=2.5e-3, max_train_steps=100)
    assert not trained(job, state)
    rows = picture_report(job, state)
    assert {row.path.stem for row in rows if row.verdict} == {f"wrong{n}" for n in range(wrong)}
    assert {row.verdict for row in rows if row.verdict} == ({"mislabelled"} if wrong else set())


@pytest.mark.slow
def test_a_rate_of_10_breaks_the_run_and_is_named(tmp_path: Path) -> None:
    drawn_tree(tmp_path)
    with pytest.raises(UserError, match=r"times the base's weights, and the loss rose from .* learning_rate 10 is too high, try 0\.0001"):
        trained(*pocket(tmp_path, learning_rate=10.0))
