"""What a run says of a step that is not finite: each cause is planted, and named with picture, module and advice."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from prep.options import UserError
from tests.train.test_run import configured
from train.families import load_model
from train.replay import first_break
from train.run import prepare, start, take_step
from train.runtime import Runtime
from train.state import Job, TrainState

pytestmark = pytest.mark.usefixtures("one_thread")

Ready = tuple[Job, TrainState]


def ready(base: Path, tree: Path, precision: str = "no", **train: Any) -> Ready:
    """Make a run ready for its first step; captions vary, so that the text encoder runs in each."""
    config = configured(base, tree, **train)
    job = prepare(config, Runtime.choose(precision), load_model(str(base)), {})
    return job, start(job, None)


def told(job: Job, state: TrainState) -> str:
    """Take steps until one fails; returns what is said, with nothing left behind."""
    parts = (job.model.unet, *job.model.text_encoders)
    types = [part.dtype for part in parts]
    with pytest.raises(UserError) as caught:
        for batch in job.data.batches(0):
            take_step([batch], job, state)
    hooks = [hook for part in parts for module in part.modules() for hook in module._forward_hooks.values()]
    assert not [hook for hook in hooks if hook.__module__ == "train.replay"] and types == [part.dtype for part in parts]
    return str(caught.value)


def spoil(job: Job, name: str, value: float) -> Any:
    """Let the latents of a picture be something else."""
    picture = next(picture for picture in job.data.pictures if picture.path.match(name))
    for view in picture.all_views():
        mean, _ = job.data.latents.latents(picture.digest, view, picture.pixels)
        mean[0, 0, 0] = value


def test_a_picture_whose_latents_are_nan(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    spoil(job, "img/2_tok/1.png", float("nan"))
    assert re.search(r"not a number at step \d+: the latents of img/2_tok/1\.png hold numbers that are not finite", told(job, state))


def test_a_picture_whose_latents_are_far_out(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    spoil(job, "img/2_tok/0.png", 1e30)
    assert re.search(r"the latents of img/2_tok/0\.png reach 1e\+30, where 5 is usual", told(job, state))


def test_a_caption_that_is_encoded_to_nan(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree, train_text_encoder=False, shuffle_caption=False)
    assert job.data.text
    caption = next(picture.caption for picture in job.data.pictures if picture.path.match("img/2_tok/1.png"))
    job.data.text.store.get(job.data.text.facts(caption), dict)["states"][0, 0] = float("nan")
    assert "the caption's encoding of img/2_tok/1.png holds numbers that are not finite" in told(job, state)


def test_a_weight_of_the_base_that_is_nan(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    with torch.no_grad():
        job.model.unet.mid_block.resnets[0].conv1.weight[0, 0, 0, 0] = float("nan")
    found = told(job, state)
    assert f"the base's weight unet.mid_block.resnets.0.conv1.weight is not finite: the base model is broken; fetch {tiny_base} anew" in found


def test_weights_of_the_lora_that_are_nan(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    name, layer = next(iter(state.network.layers.items()))
    with torch.no_grad():
        layer.down.fill_(float("nan"))  # type: ignore[operator, union-attr]
    assert f"{name} holds numbers that are not finite; learning_rate 0.01 is too high, try 0.0001" in told(job, state)


def test_a_module_of_the_base_that_overflows(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    with torch.no_grad():
        job.model.unet.mid_block.attentions[0].proj_in.weight.fill_(3e38)
    assert "unet.mid_block.attentions.0.proj_in is the first that is not finite, for " in told(job, state)


def test_a_part_of_the_text_encoder_that_overflows(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    with torch.no_grad():
        job.model.text_encoders[0].text_model.encoder.layers[1].mlp.fc1.weight.fill_(3e38)
    assert re.search(r"text_encoder\.\S*layers\.1\.mlp\.fc1 is the first that is not finite", told(job, state))


def test_fp16_that_overflows_where_float32_does_not(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree, "fp16")
    with torch.no_grad():
        job.model.unet.conv_in.weight.mul_(1e5)  # a norm follows, which takes any size
    found = told(job, state)
    assert re.search(r"finite in float32, but fp16 overflowed in unet\.conv_in \(up to \S+, and it ends at 65504\), for \S+", found)
    assert found.endswith('set mixed_precision = "bf16" or "no"')


def test_a_gradient_that_is_nan_for_one_picture(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    group = [next(job.data.batches(0))]

    def break_second(module: Any, args: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda grad: torch.where(grad[1:2].abs().sum() > 0, grad * float("nan"), grad))

    job.model.unet.conv_out.register_forward_hook(break_second)
    with pytest.raises(UserError) as caught:
        take_step(group, job, state)
    place = group[0].pictures[1].relative_to(tiny_tree).as_posix()
    assert re.search(
        rf"the gradient is not a number at step 1: the gradient of lora_\S+ is not finite in float32 either, for {place};", str(caught.value)
    )
    assert all(parameter.grad is None for parameter in state.parameters)


def test_the_sample_is_told_apart(tiny_base: Path, tiny_tree: Path) -> None:
    job, state = ready(tiny_base, tiny_tree)
    batch = next(job.data.batches(0))
    batch.latent_mean[1] = float("inf")
    found = first_break(batch, job, state, full=True)
    assert found and (found.module, found.samples, found.by_network) == ("unet.conv_in", (1,), False)
    batch.latent_mean[1] = 0
    assert first_break(batch, job, state, full=True) is None
    with torch.no_grad():
        next(layer for name, layer in state.network.layers.items() if name.endswith("attn2_to_q")).up.fill_(float("inf"))  # type: ignore[operator, union-attr]
    found = first_break(batch, job, state, full=True)
    assert found and found.module.endswith("attn2.to_q") and found.samples == (0, 1) and found.by_network
