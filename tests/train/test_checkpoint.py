"""Whole models as files: the names of the models' authors, all values, what a base's file holds besides, and diffusers reads both forms."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import train.tensor_stream
from prep.options import UserError
from tests.train.adapters.full_size import full_size
from tests.train.families.ldm import to_ldm
from tests.train.families.test_sdxl import base as xl_base  # noqa: F401  (a fixture)
from tests.train.families.test_single_file import same
from tests.train.test_diffusers_files import drawn, drawn_by_diffusers
from train.checkpoint import save_checkpoint, save_folder
from train.families import FAMILIES, load_model, single_file
from train.families.sd import Model
from train.stability import places_of
from train.tensor_stream import Entry, differing, write_stream

LIBRARIES = ("diffusers", "transformers")
# How many tensors the authors' files hold, without the schedule's and the running means: of sd-v1-5, v2-1 and sd_xl_base_1.0.
PUBLISHED = {"sd1": 1131, "sd2": 1228, "sdxl": 2515}


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, Path], None]:
    """Let single files of a family have the configurations of a folder."""
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")

    def use(family: str, folder: Path) -> None:
        (tmp_path / "configs" / family).symlink_to(folder)

    return use


def quietly(caplog: pytest.LogCaptureFixture, load: Callable[[], Any]) -> Any:
    """Load with every warning an error, and nothing told by the libraries."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        for name in LIBRARIES:
            patch.setattr(logging.getLogger(name), "propagate", True)
        warnings.simplefilter("error")
        found = load()
    assert not [record.getMessage() for record in caplog.records if record.name.startswith(LIBRARIES)]
    found.set_progress_bar_config(disable=True)
    return found


def both_forms_hold(model: Model, folder: Path, caplog: pytest.LogCaptureFixture, local: Path, kind: str) -> None:
    """Save both forms, load them with our own loader and with diffusers, and compare weights and pictures."""
    import diffusers

    file = folder / "whole.safetensors"
    save_checkpoint(file, model, {"modelspec.title": "whole"}, "fp32")
    save_folder(folder / "whole", file, model)
    assert same(load_model(str(file)), model) and same(load_model(str(folder / "whole")), model)
    from_folder = quietly(caplog, lambda: getattr(diffusers, kind).from_pretrained(folder / "whole"))
    from_file = getattr(diffusers, kind).from_single_file(str(file), config=str(local), local_files_only=True)
    from_file.set_progress_bar_config(disable=True)
    ours = drawn(model)
    for pipeline in (from_folder, from_file):
        pipeline.scheduler = diffusers.DDIMScheduler.from_config(model.scheduler_config, clip_sample=False, set_alpha_to_one=False)
        assert np.abs(drawn_by_diffusers(pipeline) - ours).max() <= 1e-3


@pytest.mark.usefixtures("one_thread")
def test_sd1_is_read_by_us_and_by_diffusers(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, configs: Callable[[str, Path], None]
) -> None:
    configs("sd1", tiny_base)
    both_forms_hold(load_model(str(tiny_base)), tmp_path, caplog, tiny_base, "StableDiffusionPipeline")


@pytest.mark.slow
def test_sdxl_is_read_by_us_and_by_diffusers(
    xl_base: Path,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    configs: Callable[[str, Path], None],
) -> None:
    configs("sdxl", xl_base)
    both_forms_hold(load_model(str(xl_base)), tmp_path, caplog, xl_base, "StableDiffusionXLPipeline")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_in_both_forms(tiny_base: Path, tmp_path: Path, precision: str) -> None:
    model, file, dtype = load_model(str(tiny_base)), tmp_path / "half.safetensors", {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    save_checkpoint(file, model, {}, precision)
    save_folder(tmp_path / "half", file, model)
    found, weights = load_file(file), to_ldm(model)
    assert all(torch.equal(found[name], weights[name].to(dtype)) for name in weights)
    unet = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(unet[name], value.to(dtype)) for name, value in model.unet.state_dict().items())


def test_the_keys_are_those_of_the_file_that_was_read(tiny_base: Path, tmp_path: Path, configs: Callable[[str, Path], None]) -> None:
    configs("sd1", tiny_base)
    position_ids = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    more = {position_ids: torch.arange(77)[None], "alphas_cumprod": torch.rand(1000).double(), "model_ema.decay": torch.tensor(0.99)}
    written = {name: value.contiguous().clone() for name, value in (to_ldm(load_model(str(tiny_base))) | more).items()}
    save_file(written, tmp_path / "base.safetensors")
    torch.save({"state_dict": written}, tmp_path / "base.ckpt")
    for base in ("base.safetensors", "base.ckpt"):
        save_checkpoint(tmp_path / "again.safetensors", load_model(str(tmp_path / base)), {}, "fp32")
        again = load_file(tmp_path / "again.safetensors")
        assert again.keys() == written.keys() - {"model_ema.decay"}, "the running mean is of weights that are no more"
        assert all(torch.equal(again[name], written[name]) and again[name].dtype == written[name].dtype for name in again)


def test_the_first_anime_models_are_written_under_the_common_names(tiny_base: Path, tmp_path: Path, configs: Callable[[str, Path], None]) -> None:
    configs("sd1", tiny_base)
    weights = to_ldm(load_model(str(tiny_base)))
    old = {name.replace("transformer.text_model.", "transformer."): value.contiguous().clone() for name, value in weights.items()}
    save_file(old, tmp_path / "nai.safetensors")
    save_checkpoint(tmp_path / "again.safetensors", load_model(str(tmp_path / "nai.safetensors")), {}, "fp32")
    assert load_file(tmp_path / "again.safetensors").keys() == weights.keys()


def test_sdxl_keeps_the_marks_of_what_it_predicts(
    xl_base: Path,  # noqa: F811
    tmp_path: Path,
    configs: Callable[[str, Path], None],
) -> None:
    configs("sdxl", xl_base)
    model = load_model(str(xl_base), prediction_type="v_prediction")
    model.scheduler_config = {**model.scheduler_config, "rescale_betas_zero_snr": True}
    save_checkpoint(tmp_path / "v.safetensors", model, {}, "fp16")
    again = load_model(str(tmp_path / "v.safetensors"))
    assert again.prediction_type == "v_prediction" and again.scheduler_config["rescale_betas_zero_snr"]
    save_folder(tmp_path / "v", tmp_path / "v.safetensors", model)
    folder = load_model(str(tmp_path / "v"))
    assert folder.prediction_type == "v_prediction" and folder.scheduler_config["rescale_betas_zero_snr"]
    again.predict("epsilon")
    again.scheduler_config = {**again.scheduler_config, "rescale_betas_zero_snr": False}
    save_checkpoint(tmp_path / "e.safetensors", again, {}, "fp16")
    assert not {"v_pred", "ztsnr"} & load_file(tmp_path / "e.safetensors").keys(), "it was trained to something else"


@pytest.mark.parametrize("family", FAMILIES)
def test_full_size_names_are_the_published_ones(family: str) -> None:
    """Shapes only: the names, the count, and that readers see what it is."""
    from train.checkpoint import file_entries

    model = full_size(family)
    entries = {entry.name: entry for entry in file_entries(model, torch.float16)}
    assert len(entries) == PUBLISHED[family]
    expected = to_ldm(model)
    assert all(entries[name].shape == tuple(value.shape) for name, value in expected.items())
    beside = entries.keys() - expected.keys()
    assert all("resblocks.23" in name or name.endswith(("position_ids", "logit_scale", "text_projection")) for name in beside)
    assert single_file.SIGNS[family] in entries and single_file.UNET in entries
    places = places_of(model)
    assert len({(place.part, place.key) for place in places}) == len(places)


SHAPES = st.lists(st.integers(0, 4), max_size=3)
TYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8])


@given(st.lists(st.tuples(SHAPES, TYPES), max_size=6))
def test_a_streamed_file_is_what_the_library_reads(tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[list[int], torch.dtype]]) -> None:
    tensors = {f"tensor é {n}": (torch.rand(shape) * 100).to(dtype) for n, (shape, dtype) in enumerate(kinds)}
    path = tmp_path_factory.mktemp("stream") / "x.safetensors"
    write_stream(path, entries_of(tensors), {"a": "ü"} if tensors else {})
    read = load_file(path)
    assert read.keys() == tensors.keys() and not differing(path, entries_of(tensors))
    assert all(read[name].dtype == value.dtype and torch.equal(read[name], value) for name, value in tensors.items())
    with safe_open(path, "pt") as file:
        assert (file.metadata() or {}) == ({"a": "ü"} if tensors else {})


def entries_of(tensors: dict[str, Tensor]) -> list[Entry]:
    return [Entry(name, tuple(value.shape), value.dtype, lambda value=value: value) for name, value in tensors.items()]  # type: ignore[misc]


def test_what_differs_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.ones(2), "more": torch.ones(1)}, tmp_path / "x.safetensors")
    wanted = entries_of({"a": torch.ones(2), "b": torch.zeros(2), "missing": torch.ones(1)})
    assert differing(tmp_path / "x.safetensors", wanted) == ["b", "missing", "more"]
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read back"):
        differing(tmp_path / "x.safetensors", wanted)


def test_weights_that_fp16_cannot_hold_save_nothing(tiny_base: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_base))
    with torch.no_grad():
        model.unet.conv_out.bias[0] = 1e6
    with pytest.raises(UserError, match=r"diffusion_model.out.2.bias is not finite in float16, so nothing was saved"):
        save_checkpoint(tmp_path / "x.safetensors", model, {}, "fp16")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sentence(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(str(tiny_base))
    save_checkpoint(tmp_path / "whole.safetensors", model, {}, "fp16")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(train.tensor_stream, "_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*x.safetensors \(No space left on device\); make room for \d+ MB"):
        save_checkpoint(tmp_path / "x.safetensors", model, {}, "fp16")
    with pytest.raises(UserError, match="No space left on device"):
        save_folder(tmp_path / "whole", tmp_path / "whole.safetensors", model)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.safetensors"]
