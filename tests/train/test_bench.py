"""`train bench` measures the run's own step and leaves nothing behind; the bare step computes what the adapters do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.train.adapters.bases import LoRANetwork, base, picture
from tests.train.test_run import TRAIN
from train.bare import BareLoRA
from train.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")


def project(base: Path, tree: Path, **train: object) -> Path:
    table = {key: value for key, value in TRAIN.items() if not (train.get("full") and key.startswith("network_"))}  # which a full fine-tune has not
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**table, **train}.items()]
    text = f'[project]\nbase = {json.dumps(str(base))}\nname = "mine"\nkeyword = "tok"\n[train]\n' + "\n".join(lines) + "\n"
    (tree.parent / "dataset.toml").write_text(text, encoding="utf-8")
    return tree.parent


@pytest.mark.parametrize(
    "settings",
    [{}, {"full": True}, {"gradient_accumulation_steps": 2, "network_algo": "lokr"}, {"train_text_encoder": False, "shuffle_caption": False}],
    ids=["lora", "full", "lokr", "cached text"],
)
def test_it_measures_every_part_and_writes_no_run(tiny_base: Path, tiny_tree: Path, settings: dict[str, object]) -> None:
    root = project(tiny_base, tiny_tree, **settings)
    result = CliRunner().invoke(main, ["bench", str(root), "--steps", "2", "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert min(found["bare"], found["step"], found["share_of_bare"]) > 0
    assert found["pictures_per_second"] == pytest.approx(2 * settings.get("gradient_accumulation_steps", 1) / found["step"])  # type: ignore[operator]
    assert found["peak_memory"] > 50e6
    parts = found["parts"]
    assert list(parts) == ["data", "text encoder", "UNet forward", "backward", "optimizer"]
    assert sum(parts.values()) <= 1 and parts["backward"] > 0.05 and parts["UNet forward"] > 0.05
    assert (parts["text encoder"] == 0) == (settings.get("train_text_encoder") is False)
    assert sorted(path.name for path in root.iterdir()) == [".atelier", "dataset.toml", "tree"]


def test_it_says_the_same_in_words(tiny_base: Path, tiny_tree: Path) -> None:
    said = CliRunner().invoke(main, ["bench", str(project(tiny_base, tiny_tree)), "--steps", "1"], catch_exceptions=False).stdout
    for words in ("a step takes", "pictures a second", "of that speed", "peak memory", "where the time goes: data"):
        assert words in said


def test_the_bare_lora_computes_what_a_lora_does() -> None:
    model = base()
    modules = [target.module for target in model.targets()]
    bare, plain = BareLoRA(modules, 2, 1.0), model(picture())
    network = LoRANetwork(model.targets(), 2, 1.0)  # type: ignore[arg-type]
    with torch.no_grad():
        for own, other in zip(bare.parameters, network.parameters(), strict=True):
            other.copy_(own.normal_(generator=torch.Generator().manual_seed(own.numel())))
    with_network = model(picture())
    network.remove()
    with bare.acting():
        torch.testing.assert_close(model(picture()), with_network)
    assert not torch.allclose(plain, with_network)
    torch.testing.assert_close(model(picture()), plain)
