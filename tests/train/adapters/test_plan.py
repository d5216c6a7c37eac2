"""Which layers get which rank, alpha and rate: the golden key sets, the field's block numbers, patterns and conflicts."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prep.options import UserError
from tests.train.adapters.full_size import full_size
from train.adapters.blocks import SD, SDXL, block_index, block_weights, numbering_of
from train.adapters.build import all_targets, build_network
from train.adapters.plan import plan_layers, stored_alpha
from train.config import NetworkConfig, TrainConfig

DATA = Path(__file__).parent.parent / "data"
GOLDEN = {
    "sd1": ("lora-sd15-dim32-keys", {}),
    "sd1 with convolutions": ("lora-sd15-dim32-conv16-keys", {"conv_dim": 16}),
    "sd2": ("lora-sd21-dim32-keys", {}),
    "sdxl": ("lora-sdxl-dim32-keys", {}),
}


def golden(name: str) -> dict[str, list[int]]:
    return json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))


def planned(family: str, **settings: Any) -> dict[str, Any]:
    return plan_layers(NetworkConfig(**settings), all_targets(full_size(family)))


@pytest.mark.parametrize("case", GOLDEN)
def test_keys_and_shapes_equal_those_of_sd_scripts(case: str) -> None:
    file, settings = GOLDEN[case]
    model = full_size(case.split()[0])
    with torch.device("meta"):
        network = build_network(NetworkConfig(network_dim=32, **settings), model, None)  # type: ignore[arg-type]
    found = {f"{name}.{suffix}": list(t.shape) for name, layer in network.layers.items() for suffix, t in layer.tensors().items()}
    network.remove()
    assert found == golden(file)


def test_sdxl_with_convolutions_has_788_unet_layers() -> None:
    plans = planned("sdxl", conv_dim=8)
    names = [name for name in plans if name.startswith("lora_unet_")]
    assert len(names) == 788
    for inner in ("input_blocks_1_0_in_layers_2", "input_blocks_1_0_out_layers_3", "input_blocks_3_0_op", "input_blocks_6_0_op",
                  "output_blocks_2_2_conv", "output_blocks_5_2_conv", "middle_block_0_emb_layers_1", "input_blocks_4_0_skip_connection"):  # fmt: skip
        assert f"lora_unet_{inner}" in plans, inner
    assert {plans["lora_unet_input_blocks_1_0_in_layers_2"].dim, plans["lora_unet_input_blocks_4_0_skip_connection"].dim} == {8, 16}


def test_blocks_are_numbered_as_in_the_field() -> None:
    found = {family: {block_index(t.name) for t in all_targets(full_size(family)) if t.part == "unet"} for family in ("sd1", "sdxl")}
    assert found["sd1"] == set(range(1, 25)) and found["sdxl"] == set(range(2, 22))
    for name, block in {
        "lora_unet_down_blocks_0_attentions_0_proj_in": 1, "lora_unet_down_blocks_0_downsamplers_0_conv": 3,
        "lora_unet_down_blocks_3_resnets_1_conv1": 11, "lora_unet_mid_block_attentions_0_proj_in": 12, "lora_unet_up_blocks_0_resnets_0_conv1": 13,
        "lora_unet_up_blocks_2_upsamplers_0_conv": 21, "lora_unet_up_blocks_3_attentions_2_proj_out": 24,
        "lora_unet_input_blocks_4_1_proj_in": 5, "lora_unet_middle_block_1_proj_in": 11, "lora_unet_output_blocks_8_0_in_layers_2": 21,
        "lora_te_text_model_encoder_layers_0_mlp_fc1": None,
    }.items():  # fmt: skip
        assert block_index(name) == block, name
    assert numbering_of(list(golden("lora-sdxl-dim32-keys"))) is SDXL and numbering_of(list(golden("lora-sd15-dim32-keys"))) is SD


def test_ranks_alphas_and_rates_by_block() -> None:
    dims = ",".join(str(2 * i) for i in range(25))
    weights = {"down_lr_weight": "linear", "mid_lr_weight": ".5", "up_lr_weight": "zeros"}
    plans = planned("sd1", block_dims=dims, block_alphas=dims, conv_dim=3, conv_alpha=1.0, **weights)
    assert not any(name.startswith("lora_unet_up_blocks") for name in plans), "a factor of 0 leaves a block out"
    second = plans["lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_2"]  # block 4, fifth of twelve
    assert (second.dim, second.alpha, second.factor) == (8, 8.0, pytest.approx(4 / 11))
    assert plans["lora_unet_down_blocks_1_resnets_0_conv1"].dim == 3 and plans["lora_unet_down_blocks_1_resnets_0_time_emb_proj"].dim == 8
    assert plans["lora_unet_mid_block_attentions_0_proj_in"].factor == 0.5
    text = plans["lora_te_text_model_encoder_layers_0_mlp_fc1"]
    assert (text.dim, text.factor) == (16, 1.0)


def test_patterns_say_rank_and_rate_and_the_first_that_matches_wins() -> None:
    plans = planned("sdxl", network_reg_dims="attn2_to_k=64 attn=8 ff_net=0", network_reg_lrs="lora_te2=1e-5 lora_te1=0")
    kinds = {"attn2_to_k": 64, "attn1_to_q": 8, "proj_in": 16}
    for name, plan in plans.items():
        assert not name.startswith("lora_te1") and "ff_net" not in name
        assert plan.rate == (1e-5 if name.startswith("lora_te2") else None)
        if found := next((dim for inner, dim in kinds.items() if inner in name and name.startswith("lora_unet")), None):
            assert plan.dim == found, name
    with pytest.raises(UserError, match="the pattern 'atn' is in no layer's name"):
        planned("sd1", network_reg_dims="atn=8")
    with pytest.raises(UserError, match="leave no layer to train"):
        planned("sd1", network_reg_dims=".=0")


@given(st.floats(1e-3, 1e3), st.integers(1, 512))
def test_a_stored_alpha_scales_by_the_root_and_any_precision_holds_it(alpha: float, dim: int) -> None:
    stored = stored_alpha(alpha, dim)
    assert stored / dim == pytest.approx(alpha / math.sqrt(dim), rel=2**-8)
    assert torch.tensor(stored, dtype=torch.bfloat16).item() == stored


@pytest.mark.parametrize("name", ["sine", "cosine", "linear", "reverse_linear", "zeros"])
def test_courses_run_between_0_and_1(name: str) -> None:
    plain, raised = block_weights(name, 12, "x"), block_weights(f"{name}+.25", 12, "x")
    assert raised == pytest.approx([value + 0.25 for value in plain])
    assert {round(plain[0]), round(plain[-1])} == ({0} if name == "zeros" else {0, 1})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"block_dims": "1,2,3"}, "block_dims has 3 numbers, but this base has 25 such blocks"),
        ({"down_lr_weight": "1,1"}, "down_lr_weight has 2 numbers, but this base has 12"),
    ],
)
def test_lists_that_do_not_fit_the_base(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        planned("sd1", **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network_algo": "lokr", "network_args": "factr=8"}, "network_args holds factr, which lokr does not know, did you mean factor"),
        ({"network_algo": "lokr", "network_args": "factor=yes"}, "network_args holds 'factor=yes'; factor is a number"),
        ({"network_algo": "loha", "network_dropout": 0.1}, "loha has no network_dropout"),
        ({"network_algo": "ia3", "rs_lora": True}, "ia3 has no alpha that rs_lora could scale"),
        ({"network_algo": "loha", "loraplus_lr_ratio": 16.0}, "loha has no up half"),
        ({"network_algo": "dora", "scale_weight_norms": 1.0}, "scale_weight_norms does not work with dora"),
        ({"conv_alpha": 1.0}, "conv_alpha is set and conv_dim is 0"),
        ({"block_alphas": "1"}, "block_alphas is set and block_dims is not"),
        ({"block_dims": "4,x"}, 'block_dims = "4,x" is no list of numbers'),
        ({"network_reg_dims": "attn"}, "network_reg_dims holds 'attn'; write it as"),
        ({"network_reg_lrs": "(=1"}, r"network_reg_lrs holds '\(=1'; write it as"),
        ({"dim_from_weights": True}, "dim_from_weights is set and network_weights is not"),
        ({"base_weights": "a|b", "base_weights_multiplier": "1"}, "base_weights names 2 files and base_weights_multiplier 1 numbers"),
    ],
)
def test_conflicts_are_told_before_a_base_is_loaded(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        TrainConfig.load({"train": settings}, {})
