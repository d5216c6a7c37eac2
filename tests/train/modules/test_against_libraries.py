"""Our networks against those of diffusers and transformers: the same tensors under the same names, the same outputs and gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prep.options import UserError
from train.families.parts import fill, plain_names
from train.families.single_file import CONFIGS
from train.modules.clip import CLIPTextModel, CLIPTextModelWithProjection
from train.modules.unet import UNet2DConditionModel
from train.modules.vae import AutoencoderKL

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
FAMILIES = ("sd1", "sd2", "sdxl")


def small(family: str, part: str) -> dict[str, Any]:
    """Read a family's configuration and make it narrow."""
    config: dict[str, Any] = json.loads((CONFIGS / family / part / "config.json").read_text(encoding="utf-8"))
    if part.startswith("text"):
        return {**config, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "projection_dim": 24}
    widths = [32 * (1 + level) for level in range(len(config["block_out_channels"]))]
    config = {**config, "block_out_channels": widths, "norm_num_groups": 8}
    if part == "vae":
        return config
    heads = config["attention_head_dim"]
    config |= {"cross_attention_dim": 48, "attention_head_dim": [2, 4, 8, 8][: len(heads)] if isinstance(heads, list) else heads}
    if family == "sdxl":
        config |= {"transformer_layers_per_block": [1, 2, 3], "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 24}
    return config


def twins(theirs: Any, kind: Any, config: dict[str, Any]) -> Any:
    """Give a network of ours the weights of theirs."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2) if parameter.ndim == 1 else None
    with torch.device("meta"):
        ours = kind(config)
    part = "text_encoder" if kind in (CLIPTextModel, CLIPTextModelWithProjection) else "vae" if kind is AutoencoderKL else "unet"
    assert list(ours.state_dict()) == list(plain_names(part, theirs.state_dict()))
    return fill(ours, {name: tensor.clone() for name, tensor in plain_names(part, theirs.state_dict()).items()}, torch.float32)


@pytest.mark.parametrize("size", [(16, 8), (10, 14)])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_unet(family: str, recompute: bool, size: tuple[int, int]) -> None:
    from diffusers import UNet2DConditionModel as Theirs

    torch.manual_seed(0)
    config = small(family, "unet")
    theirs = Theirs.from_config(config).eval()
    ours = twins(theirs, UNet2DConditionModel, config)
    for module in ours.modules():
        if hasattr(module, "recompute"):
            module.recompute = recompute
    noisy, timesteps, states = torch.randn(2, 4, *size), torch.tensor([3, 801]), torch.randn(2, 9, 48)
    pooled, sizes = torch.randn(2, 24), torch.tensor([[512, 640, 0, 8, 512, 512], [1024, 1024, 0, 0, 768, 1344]])
    told = {"text_embeds": pooled, "time_ids": sizes} if family == "sdxl" else None
    found = []
    for inputs in (noisy.clone(), states.clone()), (noisy.clone(), states.clone()):
        for tensor in inputs:
            tensor.requires_grad_()
        if found:
            output = ours(inputs[0], timesteps, inputs[1], *((pooled, sizes) if told else ()))
        else:
            output = theirs(inputs[0], timesteps, encoder_hidden_states=inputs[1], added_cond_kwargs=told).sample
        output.square().mean().backward()
        found.append((output.detach(), inputs[0].grad, inputs[1].grad))
    for reference, own in zip(*found, strict=True):
        torch.testing.assert_close(own, reference, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_unet_in_half_precision(dtype: torch.dtype) -> None:
    from diffusers import UNet2DConditionModel as Theirs

    torch.manual_seed(0)
    config = small("sdxl", "unet")
    theirs = Theirs.from_config(config).eval()
    ours = twins(theirs, UNet2DConditionModel, config).to(dtype)
    told = {"text_embeds": torch.randn(1, 24, dtype=dtype), "time_ids": torch.tensor([[512, 640, 0, 8, 512, 512]])}
    noisy, time, states = torch.randn(1, 4, 8, 8, dtype=dtype), torch.tensor([77]), torch.randn(1, 9, 48, dtype=dtype)
    with torch.no_grad():
        reference = theirs.to(dtype)(noisy, time, encoder_hidden_states=states, added_cond_kwargs=told).sample
        own = ours(noisy, time, states, told["text_embeds"], told["time_ids"])
    assert own.dtype == dtype
    torch.testing.assert_close(own.float(), reference.float(), atol=0.02 if dtype == torch.bfloat16 else 3e-3, rtol=0.02)


@pytest.mark.parametrize("attends", [True, False])
def test_vae(attends: bool) -> None:
    from diffusers import AutoencoderKL as Theirs

    torch.manual_seed(0)
    config = {**small("sd1", "vae"), "mid_block_add_attention": attends, "use_quant_conv": attends, "use_post_quant_conv": attends}
    theirs = Theirs.from_config(config).eval()
    ours = twins(theirs, AutoencoderKL, config)
    pixels, latents = torch.randn(2, 3, 32, 48), torch.randn(2, 4, 4, 6)
    with torch.no_grad():
        posterior = theirs.encode(pixels).latent_dist
        mean, deviation = ours.encode(pixels)
        torch.testing.assert_close(mean, posterior.mean, **CLOSE)
        torch.testing.assert_close(deviation, posterior.std, **CLOSE)
        torch.testing.assert_close(ours.decode(latents), theirs.decode(latents).sample, **CLOSE)


def test_vae_of_the_first_folders_is_read() -> None:
    config = small("sd1", "vae")
    vae = AutoencoderKL(config)
    back = {"to_q": "query", "to_k": "key", "to_v": "value"}
    old = {}
    for name, tensor in vae.state_dict().items():
        levels = name.replace("to_out.0", "proj_attn").split(".")
        old[".".join(back.get(level, level) for level in levels)] = tensor
    assert any(".query." in name for name in old)
    assert list(plain_names("vae", old)) == list(vae.state_dict())


@pytest.mark.parametrize(("family", "part"), [("sd1", "text_encoder"), ("sd2", "text_encoder"), ("sdxl", "text_encoder_2")])
def test_text_encoder(family: str, part: str) -> None:
    import transformers

    torch.manual_seed(0)
    config = small(family, part)
    name, kind = ("CLIPTextModel", CLIPTextModel) if part == "text_encoder" else ("CLIPTextModelWithProjection", CLIPTextModelWithProjection)
    theirs = getattr(transformers, name)(transformers.CLIPTextConfig(**config)).eval()
    ours = twins(theirs, kind, config)
    pad = config["pad_token_id"]
    ids = torch.tensor([[49406, 320, 1125, 539, 49407, *[pad] * 72], [49406, *[2368] * 75, 49407]])
    with torch.no_grad():
        reference = theirs(input_ids=ids, output_hidden_states=True)
        own = ours(ids)
        norm = ours.text_model.final_layer_norm
    assert len(own.hidden_states) == config["num_hidden_layers"] + 1
    for layer in (0, 1, -2):
        torch.testing.assert_close(own.hidden_states[layer], reference.hidden_states[layer], **CLOSE)
    torch.testing.assert_close(norm(own.hidden_states[-1]), reference.last_hidden_state, **CLOSE)
    if own.text_embeds is not None:
        torch.testing.assert_close(own.text_embeds, reference.text_embeds, **CLOSE)
    assert (own.text_embeds is None) == (part == "text_encoder")


@pytest.mark.parametrize(
    "entry", [("act_fn", "gelu"), ("class_embed_type", "timestep"), ("dual_cross_attention", True), ("resnet_skip_time_act", True)]
)
def test_a_configuration_of_another_kind_is_refused(entry: tuple[str, Any]) -> None:
    with pytest.raises(UserError, match=entry[0]):
        UNet2DConditionModel({**small("sd1", "unet"), entry[0]: entry[1]})


def test_weights_that_do_not_fit_are_refused() -> None:
    with torch.device("meta"):
        empty = AutoencoderKL(small("sd1", "vae"))
    held = AutoencoderKL(small("sd1", "vae")).state_dict()
    with pytest.raises(ValueError, match=r"no encoder\.conv_in\.weight"):
        fill(empty, {name: tensor for name, tensor in held.items() if name != "encoder.conv_in.weight"}, torch.float32)
    with pytest.raises(ValueError, match=r"encoder\.conv_in\.bias is \(3,\)"):
        fill(empty, {**held, "encoder.conv_in.bias": torch.zeros(3)}, torch.float32)


def test_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from train.families.parts import read_tensors

    config = small("sd1", "vae")
    save_file(AutoencoderKL(config).state_dict(), tmp_path / "vae.safetensors")
    tensors = read_tensors(tmp_path / "vae.safetensors")
    with torch.device("meta"):
        empty = AutoencoderKL(config)
    vae = fill(empty, tensors, torch.float32)
    assert vae.get_parameter("encoder.conv_in.weight").data_ptr() == tensors["encoder.conv_in.weight"].data_ptr()
    assert not any(parameter.requires_grad for parameter in vae.parameters())
