"""What the whole-chain tests share: a command line in a process of its own, a folder of real photographs, a short project."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# The photographs that ship inside scikit-image and scikit-learn (CC0, public domain, CC BY); none is fetched.
SKIMAGE = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run `python -m prep ...` or `python -m train ...` as a user would, with a stock of class pictures of its own."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def run(*args: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "LORA_ATELIER_CACHE": cache}
        return subprocess.run([sys.executable, "-m", *map(str, args)], capture_output=True, text=True, timeout=timeout, env=environment)

    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write eight real photographs as PNG and JPEG."""
    import skimage.data
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder = tmp_path_factory.mktemp("photographs")
    for index, name in enumerate(SKIMAGE):
        image = Image.fromarray(getattr(skimage.data, name)())
        image.save(folder / f"{name}.{'png' if index % 2 else 'jpg'}")
    for index, pixels in enumerate(load_sample_images().images):
        Image.fromarray(pixels).save(folder / f"sample {index}.jpg")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Start a project on twelve pictures of the demo's raw folder, with settings that take seconds."""
    from pipelines.dirt import write_raw

    for path in write_raw(tmp_path / "raw")[:-12]:
        path.unlink()
    (tmp_path / "dataset.toml").write_text(SHORT, encoding="utf-8")
    return tmp_path


SHORT = """\
[project]
name = "mira"
keyword = "mira"
class = "1girl, solo"
[crop]
mode = "square"
[build]
repeats = 1
[regularize]
count = 6
steps = 3
[train]
train_batch_size = 4
num_epochs = 3
network_dim = 4
network_alpha = 4.0
sample_steps = 2
save_state_every_n_steps = 2
"""
