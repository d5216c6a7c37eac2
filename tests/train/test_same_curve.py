"""The embedded base: whatever is compiled, cached, swapped or computed twice, a run's losses are those of the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.pocket import world
from tests.train.test_regions import needs_compiler
from tests.train.test_run import configured, logged
from train.config import TrainConfig
from train.run import run

STEPS = 12
# Captions do not vary and their encoder is frozen, so that they can be encoded once.
PLAIN: dict[str, Any] = {
    "max_train_steps": STEPS, "learning_rate": 2.5e-3, "train_batch_size": 2, "train_text_encoder": False, "shuffle_caption": False, "flip_aug": True,
    "cache_latents_to_disk": False, "cache_text_encoder_outputs": False, "compile": "off", "sample_steps": 0, "report_pictures": False,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "latents and captions cached": {"cache_latents_to_disk": True, "cache_text_encoder_outputs": True},
    "captions cached in memory": {"cache_text_encoder_outputs": True},
    "two blocks swapped": {"blocks_to_swap": 2},
    "ten blocks swapped and checkpointed": {"blocks_to_swap": 10, "gradient_checkpointing": True},
    "checkpointed": {"gradient_checkpointing": True},
    "compiled": {"compile": "max"},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawings of the marked character, and their captions."""
    folder = tmp_path_factory.mktemp("drawn") / "tree"
    own = folder / "img" / "1_tok"
    own.mkdir(parents=True)
    for number, (picture, tags) in enumerate(world.demo_pictures(8, seed=3)):
        picture.resize((64, 64)).save(own / f"{number}.png")
        (own / f"{number}.txt").write_text(", ".join(["tok", *tags]) + "\n", encoding="utf-8")
    return folder


def curve(tree: Path, name: str, **settings: Any) -> dict[str, list[float]]:
    """Train on the embedded base and return the losses and gradient norms of all steps."""
    config: TrainConfig = configured(Path("pocket"), tree, **{**PLAIN, **settings}, output_dir=name)
    run(config)
    lines = logged(config)
    assert len(lines) == STEPS
    return {key: [line[key] for line in lines] for key in ("loss", "grad_norm")}


@pytest.fixture(scope="module")
def plain(tree: Path) -> dict[str, list[float]]:
    return curve(tree, "plain")


@pytest.mark.parametrize("kind", [name if name != "compiled" else pytest.param(name, marks=[pytest.mark.slow, needs_compiler]) for name in KINDS])
def test_the_losses_are_those_of_the_plain_run(tree: Path, plain: dict[str, list[float]], kind: str) -> None:
    found = curve(tree, kind, **KINDS[kind])
    assert found["loss"] == pytest.approx(plain["loss"], rel=1e-4) and found["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)


def test_another_seed_is_another_curve(tree: Path, plain: dict[str, list[float]]) -> None:
    """The losses of two runs are not alike whatever is done."""
    assert curve(tree, "other seed", seed=7)["loss"] != pytest.approx(plain["loss"], rel=1e-2)
