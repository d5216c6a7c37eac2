"""check, merge, resize, extract and convert: what they write equals what they promise, and what they refuse is one sentence."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from prep.options import LazyGroup
from tests.train.adapters.bases import shaken
from train.adapters.build import build_network
from train.config import NetworkConfig
from train.export import read_file, read_lora, save_lora
from train.families import load_model
from train.families.sd import Model
from train.tools.check import examine
from train.tools.extract import low_rank
from train.tools.updates import ALPHA, DOWN, UP, Limit, resized, rounding_error, scale_of, summed, update_norm

TABLE = {name: f"train.tools.{name}:{name}" for name in ("check", "merge", "resize", "extract", "convert", "info")}


def run(*args: Any) -> Result:
    group = LazyGroup("train", table=TABLE, params=[click.Option(["--debug"], is_flag=True)], callback=lambda debug: None)
    return CliRunner().invoke(group, [str(arg) for arg in args], env={"COLUMNS": "200"})


def layer(seed: int, rank: int = 6, out: int = 10, inner: tuple[int, ...] = (8,), alpha: float = 3.0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ones = [1] * (len(inner) - 1)
    return {UP: torch.randn(out, rank, *ones, generator=draw), DOWN: torch.randn(rank, *inner, generator=draw), ALPHA: torch.tensor(alpha)}


def update(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return scale_of(tensors) * tensors[UP].double().flatten(1) @ tensors[DOWN].double().flatten(1)


def updates(path: Path) -> dict[str, torch.Tensor]:
    state, _ = read_lora(path)
    names = {key.partition(".")[0] for key in state}
    return {name: update({suffix: state[f"{name}.{suffix}"] for suffix in (UP, DOWN, ALPHA)}) for name in names}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two LoRAs of different ranks, with one layer in common."""
    found = []
    for i, names in enumerate((("lora_unet_mid_block_resnets_0_conv1", "lora_te_text_model_encoder_layers_0_mlp_fc1"),
                               ("lora_unet_mid_block_resnets_0_conv1",))):  # fmt: skip
        state = {f"{name}.{suffix}": t for name in names for suffix, t in layer(i, 4 + i, inner=(8, 3, 3) if "conv" in name else (8,)).items()}
        save_lora(tmp_path / f"{i}.safetensors", state, {"ss_steps": "7", "ss_network_dim": "99"}, "fp32")
        found.append(tmp_path / f"{i}.safetensors")
    return found


@given(st.integers(0, 50), st.integers(1, 8), st.sampled_from([(8,), (8, 3, 3), (8, 1, 1)]))
def test_a_resized_layer_is_the_best_of_its_rank(seed: int, dim: int, inner: tuple[int, ...]) -> None:
    old = layer(seed, inner=inner)
    new, share = resized(old, dim)
    wanted = update(old)
    u, values, vt = torch.linalg.svd(wanted, full_matrices=False)
    best = (u[:, :dim] * values[:dim]) @ vt[:dim]
    assert torch.allclose(update(new), best, atol=1e-5) and new[DOWN].shape[1:] == old[DOWN].shape[1:]
    assert share == pytest.approx(float(best.norm() / wanted.norm()), rel=1e-6)
    assert scale_of(new) == pytest.approx(scale_of(old))
    norm = update_norm(old)
    assert norm == pytest.approx(float(wanted.norm()))
    kept, share = resized(old, 8, Limit("sv_fro", 0.9))
    assert share >= 0.9 and (len(kept[DOWN]) == 1 or resized(old, len(kept[DOWN]) - 1)[1] < 0.9)


@given(st.integers(0, 50), st.sampled_from([torch.float16, torch.bfloat16]))
def test_the_rounding_error_is_that_of_the_whole_update(seed: int, dtype: torch.dtype) -> None:
    tensors = layer(seed)
    rounded = {**tensors, UP: tensors[UP].to(dtype).float(), DOWN: tensors[DOWN].to(dtype).float()}
    wanted = float((update(rounded) - update(tensors)).norm() / update(tensors).norm())
    assert rounding_error(tensors, dtype) == pytest.approx(wanted, rel=1e-4)


def test_a_sum_is_exact() -> None:
    layers = [(layer(1, 3, alpha=2.0), 0.5), (layer(2, 5), -1.0)]
    found = summed(layers)
    assert len(found[DOWN]) == 8 and torch.allclose(update(found), sum(s * update(t) for t, s in layers), atol=1e-5)  # type: ignore[arg-type]


def test_merge_adds_up(files: list[Path], tmp_path: Path) -> None:
    result = run("merge", *files, "-o", tmp_path / "sum.safetensors", "-s", "0.5,2", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    first, second, found = updates(files[0]), updates(files[1]), updates(tmp_path / "sum.safetensors")
    for name, tensor in found.items():
        assert torch.allclose(tensor, 0.5 * first[name] + 2 * second.get(name, torch.zeros(())), atol=1e-5), name
    metadata = read_lora(tmp_path / "sum.safetensors")[1]
    assert (metadata["ss_network_dim"], metadata["ss_steps"]) == ("Dynamic", "7")
    small = run("merge", *files, "-o", tmp_path / "small.safetensors", "--dim", 2)
    assert small.exit_code == 0 and read_lora(tmp_path / "small.safetensors")[1]["ss_network_dim"] == "2"


def test_resize_says_what_stays(files: list[Path], tmp_path: Path) -> None:
    result = run("resize", files[0], "-o", tmp_path / "small.safetensors", "-d", 2)
    assert result.exit_code == 0 and "2 layers of rank 2 to 2" in result.output and "of its norm" in result.output
    info = json.loads(run("info", tmp_path / "small.safetensors", "--json").output)
    assert info["parts"]["UNet"]["dims"] == {"2": 1} and {h["verdict"] for h in info["hashes"].values()} == {"right"}


@pytest.mark.parametrize(("rule", "param", "rank"), [("sv_ratio", 5.0, 3), ("sv_cumulative", 0.8, 2), ("sv_fro", 0.99, 3), ("sv_fro", 1.0, 4)])
def test_the_rules_of_sd_scripts(rule: str, param: float, rank: int) -> None:
    values = torch.tensor([10.0, 5.0, 2.0, 1.0], dtype=torch.float64)  # shares of the sum 0.56, 0.83, 0.94, 1; of the norm 0.88, 0.981, 0.996, 1
    assert Limit(rule, param).enough(values) == rank


def test_a_full_rank_resize_is_the_identity(files: list[Path], tmp_path: Path) -> None:
    result = run("resize", files[0], "-o", tmp_path / "same.safetensors", "-d", 4)
    assert result.exit_code == 0, result.output
    old, new = load_file(files[0]), load_file(tmp_path / "same.safetensors")
    assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)


def test_a_loha_is_resized_to_a_lora(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    halves = {f"hada_w{i}_{end}": torch.randn(*size, generator=draw) for i in (1, 2) for end, size in (("a", (12, 2)), ("b", (2, 9)))}
    save_file({f"lora_unet_a.{suffix}": t for suffix, t in {**halves, "alpha": torch.tensor(1.0)}.items()}, tmp_path / "loha.safetensors")
    result = run("resize", tmp_path / "loha.safetensors", "-o", tmp_path / "lora.safetensors", "-d", 4)
    assert result.exit_code == 0, result.output
    wanted = 0.5 * (halves["hada_w1_a"] @ halves["hada_w1_b"]) * (halves["hada_w2_a"] @ halves["hada_w2_b"])
    assert torch.allclose(updates(tmp_path / "lora.safetensors")["lora_unet_a"], wanted.double(), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dora", [False, True])
def test_kohya_to_peft_to_kohya_is_the_same_file(dtype: torch.dtype, dora: bool, tmp_path: Path) -> None:
    names = {"lora_unet_mid_block_resnets_0_conv1": (8, 3, 3), "lora_unet_mid_block_attentions_0_proj_in": (8, 1, 1),
             "lora_te_text_model_encoder_layers_0_mlp_fc1": (8,), "lora_te_text_model_encoder_layers_1_self_attn_q_proj": (8,)}  # fmt: skip
    state = {}
    for i, (name, inner) in enumerate(names.items()):
        tensors = {**layer(i, 2 + i, inner=inner, alpha=1.0 + i), **({"dora_scale": torch.rand(10, *[1] * len(inner))} if dora else {})}
        state |= {f"{name}.{suffix}": tensor.to(dtype) for suffix, tensor in tensors.items()}
    start, there, back = (tmp_path / f"{name}.safetensors" for name in "abc")
    save_file(state, start, {"ss_steps": "7", "mine": "kept"})
    assert run("convert", start, "-o", there, "--format", "peft").exit_code == 0
    result = run("convert", there, "-o", back)
    assert result.exit_code == 0, result.output
    found = load_file(back)
    assert found.keys() == state.keys()
    assert all(found[key].dtype == state[key].dtype and torch.equal(found[key], state[key]) for key in state)
    metadata = read_lora(back)[1]
    assert metadata["ss_steps"] == "7" and metadata["mine"] == "kept" and "lora_adapter_metadata" not in metadata


def test_convert_there_and_back_is_the_same_file(files: list[Path], tmp_path: Path) -> None:
    there, back = tmp_path / "d.safetensors", tmp_path / "k.safetensors"
    assert run("convert", files[0], "-o", there, "--format", "diffusers").exit_code == 0
    assert any(key.endswith("lora_A.weight") for key in read_file(there)[0])
    info = json.loads(run("info", there, "--json").output)
    assert {h["verdict"] for h in info["hashes"].values()} == {"right"} and info["parts"]["UNet"]["layers"] == 1
    assert run("convert", there, "-o", back, "--precision", "fp32").exit_code == 0
    old, new = load_file(files[0]), load_file(back)
    assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
    assert read_lora(back)[1]["sshs_model_hash"] == read_lora(files[0])[1]["sshs_model_hash"]


@pytest.mark.parametrize("args", [("merge", "{0}", "-o", "{0}"), ("resize", "{0}", "-o", "{0}"), ("convert", "{0}", "-o", "{0}")])
def test_nothing_is_overwritten(files: list[Path], args: tuple[str, ...]) -> None:
    before = files[0].read_bytes()
    result = run(*(arg.format(files[0]) for arg in args))
    assert result.exit_code == 1 and "is there already" in result.output and files[0].read_bytes() == before


def test_what_cannot_be_done_is_one_sentence(files: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_lora(other, {f"lora_unet_mid_block_resnets_0_conv1.{suffix}": t for suffix, t in layer(3, out=12).items()}, {}, "fp32")
    loha = tmp_path / "loha.safetensors"
    save_file({f"lora_unet_a.hada_w{i}_{half}": torch.ones(2, 2) for i in (1, 2) for half in "ab"}, loha)
    dora, lokr = tmp_path / "dora.safetensors", tmp_path / "lokr.safetensors"
    save_file({f"lora_unet_a.{suffix}": t for suffix, t in {**layer(1), "dora_scale": torch.ones(10, 1)}.items()}, dora)
    save_file({"lora_unet_a.lokr_w1": torch.ones(2, 2), "lora_unet_a.lokr_w2": torch.ones(2, 2)}, lokr)
    for args, words in (
        (("merge", files[0], other, "-o", tmp_path / "x"), "has another size in each file"),
        (("merge", *files, "-o", tmp_path / "x", "-s", "1"), "there are 2 files and 1 strengths"),
        (("merge", files[0], "-o", tmp_path / "x", "-s", "much"), "is no list of numbers"),
        (("merge", loha, "-o", tmp_path / "x"), "is no plain LoRA"),
        (("resize", dora, "-o", tmp_path / "x"), "whose lengths belong to the whole update"),
        (("resize", lokr, "-o", tmp_path / "x"), "no rank of two plain halves"),
        (("resize", files[0], "-o", tmp_path / "x", "--method", "sv_ratio"), "needs --param"),
        (("resize", files[0], "-o", tmp_path / "x", "--method", "sv_fro", "--param", "2"), "needs --param"),
        (("resize", files[0], "-o", tmp_path / "x", "--param", "2"), "is the number of a --method"),
        (("check", tmp_path / "nothing"), "there is no file"),
    ):
        result = run(*args)
        assert result.exit_code == 1 and words in result.output and "Traceback" not in result.output, result.output


def found_in(state: dict[str, torch.Tensor]) -> str:
    return "; ".join(f"{level}: {sentence}" for level, sentence in examine(state)["findings"])


def test_check_finds_what_is_wrong(files: list[Path]) -> None:
    good = read_lora(files[0])[0]
    name = "lora_unet_mid_block_resnets_0_conv1"
    assert found_in(good) == ""
    assert "error: 1 tensors hold numbers that are not finite" in found_in({**good, f"{name}.{UP}": torch.full((10, 4, 1, 1), torch.nan)})
    assert "warning: 1 layers are all zero" in found_in({**good, f"{name}.{UP}": torch.zeros(10, 4, 1, 1)})
    assert "error: all updates are zero" in found_in({key: torch.zeros_like(t) if UP in key else t for key, t in good.items()})
    assert "are 0; they were lost in saving" in found_in({**good, f"{name}.{DOWN}": good[f"{name}.{DOWN}"] * (torch.arange(9).view(3, 3) > 4)})
    assert "saved in fp16 as it is" in found_in({**good, f"{name}.{UP}": good[f"{name}.{UP}"] * 1e-7})
    many = {f"lora_unet_{i}.{suffix}": t for i in range(5) for suffix, t in layer(i).items()}
    assert "change 50 times as much as most" in found_in({**many, f"lora_unet_3.{UP}": 1e3 * many[f"lora_unet_3.{UP}"]})


def test_check_knows_the_layers_that_are_never_trained() -> None:
    state = {f"lora_te1_text_model_encoder_layers_{i}_mlp_fc1.{suffix}": t for i in (10, 11) for suffix, t in layer(i).items()}
    state[f"lora_te1_text_model_encoder_layers_11_mlp_fc1.{UP}"].zero_()
    assert found_in(state) == ""


@pytest.mark.parametrize(
    ("name", "clip_skip", "sound"),
    [("lora_te_text_model_encoder_layers_11", "", True), ("lora_te_text_model_encoder_layers_22", "2", True),
     ("lora_te_text_model_encoder_layers_10", "2", False), ("lora_te_text_model_encoder_layers_10", "3", True),
     ("lora_te1_text_model_encoder_layers_10", "2", True), ("lora_te1_text_model_encoder_layers_10", "", False),
     ("lora_te2_text_model_encoder_layers_31", "2", False), ("lora_unet_mid_block_attentions_0_proj_in", "", False)],
)  # fmt: skip
def test_layers_behind_clip_skip_are_no_fault(name: str, clip_skip: str, sound: bool) -> None:
    state = {f"{full}.{suffix}": t for i, full in enumerate((f"{name}_mlp_fc1", "lora_unet_a")) for suffix, t in layer(i).items()}
    state[f"{name}_mlp_fc1.{UP}"].zero_()
    assert (examine(state, {"ss_clip_skip": clip_skip})["findings"] == []) == sound


def test_check_counts_small_numbers_and_adds_up_blocks() -> None:
    names = ("lora_unet_up_blocks_1_attentions_0_proj_in", "lora_unet_up_blocks_1_attentions_0_proj_out", "lora_unet_input_blocks_4_1_proj_in")
    state = {f"{name}.{suffix}": t.half() for i, name in enumerate(names) for suffix, t in layer(i).items()}
    facts = examine(state)
    assert facts["subnormal_share"] == 0 and set(facts["blocks"]) == {"up_blocks_1", "input_blocks_4"}
    first, second, third = (float(update({s: state[f"{name}.{s}"] for s in (UP, DOWN, ALPHA)}).norm()) for name in names)
    assert facts["blocks"] == pytest.approx({"up_blocks_1": (first**2 + second**2) ** 0.5, "input_blocks_4": third})
    tiny = {key: t * 1e-5 if UP in key else t for key, t in state.items()}
    assert examine(tiny)["subnormal_share"] == pytest.approx(10 / 18, abs=0.03)
    assert "too small for all digits" in found_in(tiny)


def test_check_against_a_base(model: Model, tiny_base: Path, tmp_path: Path) -> None:
    network = build_network(NetworkConfig(network_dim=2, conv_dim=2), model, torch.Generator().manual_seed(1))
    network.remove()
    state = shaken(network).state()
    save_lora(tmp_path / "fits.safetensors", state, {}, "fp32")
    assert "sound" in run("check", tmp_path / "fits.safetensors", "--base", tiny_base).output
    name = "lora_unet_mid_block_attentions_0_proj_in"
    wrong = {**state, f"{name}.{UP}": torch.ones(3, 2, 1, 1), **{f"lora_unet_other.{suffix}": t for suffix, t in layer(1).items()}}
    save_lora(tmp_path / "wrong.safetensors", wrong, {}, "fp32")
    result = run("check", tmp_path / "fits.safetensors", tmp_path / "wrong.safetensors", "--base", tiny_base, "--json")
    fits, found = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 1 and fits["findings"] == []
    assert any("has no lora_unet_other" in said for _, said in found["findings"]) and any("another size" in said for _, said in found["findings"])


def test_check_prints_a_verdict_and_fails_on_an_error(files: list[Path], tmp_path: Path) -> None:
    result = run("check", files[0])
    assert result.exit_code == 0 and "sound" in result.output and "text encoder" in result.output
    dead = {key: torch.zeros_like(t) if UP in key else t for key, t in read_lora(files[0])[0].items()}
    save_lora(tmp_path / "dead.safetensors", dead, {}, "fp16")
    result = run("check", tmp_path / "dead.safetensors", "--json")
    assert result.exit_code == 1 and json.loads(result.output)["findings"][0][0] == "error"


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


def test_what_is_merged_into_a_base_can_be_extracted_again(model: Model, tiny_base: Path, tmp_path: Path) -> None:
    network = build_network(NetworkConfig(network_dim=3, conv_dim=2), model, torch.Generator().manual_seed(1))
    network.remove()
    lora, tuned, again = tmp_path / "a.safetensors", tmp_path / "tuned", tmp_path / "again.safetensors"
    save_lora(lora, shaken(network).state(), {}, "fp32")
    result = run("merge", lora, "-o", tuned, "--base", tiny_base, "-s", "2")
    assert result.exit_code == 0, result.output
    result = run("extract", tiny_base, tuned, "-o", again, "-d", 3, "--conv-dim", 3, "--precision", "fp32")
    assert result.exit_code == 0 and "100.0% of the difference's norm" in result.output, result.output
    wanted, found = updates(lora), updates(again)
    assert wanted.keys() == found.keys()
    assert max(float((found[name] - 2 * wanted[name]).norm() / wanted[name].norm()) for name in wanted) < 1e-4
    result = run("extract", tiny_base, tiny_base, "-o", tmp_path / "none.safetensors")
    assert result.exit_code == 1 and "do not differ" in result.output


def test_large_differences_are_projected_and_the_same_each_time() -> None:
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(600, 20, generator=draw) @ torch.randn(20, 700, generator=draw)
    (one, kept, whole), (two, *_) = low_rank(wanted, 20), low_rank(wanted, 20)
    assert kept == pytest.approx(whole, rel=1e-4) and torch.equal(one[UP], two[UP])
    assert torch.allclose(update(one), wanted.double(), atol=1e-3)
