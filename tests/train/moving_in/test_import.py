"""Twenty configurations as people have them, in all forms: each is imported, loads, and every argument has a fate."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.options import UserError
from prep.tree import read_tree
from train.cli import main
from train.config import TrainConfig
from train.moving_in.arguments import DEFAULTS, NEEDLESS, OF_THEIR_OWN, SAME, UNSUPPORTED, known_arguments
from train.moving_in.command import toml_of
from train.moving_in.convert import convert
from train.moving_in.moved import Moved
from train.moving_in.read import Told, from_words, read_all, words_of

BASE = {"pretrained_model_name_or_path": "/models/base.safetensors", "output_name": "mine", "output_dir": "out"}
SD15 = {**BASE, "resolution": "512,512", "network_module": "networks.lora", "network_dim": 32, "network_alpha": 16, "max_train_epochs": 10,
        "train_batch_size": 2, "mixed_precision": "fp16", "save_precision": "fp16", "xformers": True, "cache_latents": True}  # fmt: skip
SDXL = {**SD15, "resolution": "1024,1024", "no_half_vae": True, "gradient_checkpointing": True, "cache_text_encoder_outputs": True,
        "network_train_unet_only": True}  # fmt: skip
GUI = {
    "LoRA_type": "Standard", "epoch": 8, "max_train_steps": "", "max_train_epochs": "", "optimizer": "AdamW8bit", "lr_warmup": 10,
    "learning_rate": 0.0001, "unet_lr": 0.0001, "text_encoder_lr": 5e-05, "network_dim": 32, "network_alpha": 16, "conv_dim": 1, "conv_alpha": 1,
    "max_resolution": "512,512", "pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5", "xformers": "xformers", "seed": "",
    "noise_offset_type": "Original", "noise_offset": 0.05, "multires_noise_iterations": 8, "multires_noise_discount": 0.2, "save_precision": "fp16",
    "num_cpu_threads_per_process": 2, "stop_text_encoder_training_pct": 0, "lr_scheduler": "cosine", "train_batch_size": 1, "model_list": "custom",
    "additional_parameters": "--ip_noise_gamma=0.1 --max_grad_norm 0.5", "keep_tokens": "0", "max_token_length": "75", "output_name": "mine",
}  # fmt: skip

# name -> (arguments or kohya_ss's JSON, settings of ours that must come of it)
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("toml", SD15, {"network_dim": 32, "num_epochs": 10, "lr_warmup_ratio": 0.0, "lr_scheduler": "constant"}),
    "only defaults": ("list", BASE, {"network_dim": 4, "network_alpha": 1.0, "max_train_steps": 1600, "learning_rate": 2e-6}),
    "character of the anime lineage": (
        "list",
        {**SD15, "clip_skip": 2, "shuffle_caption": True, "keep_tokens": 1, "max_token_length": 225, "enable_bucket": True, "min_bucket_reso": 320,
         "flip_aug": True, "prior_loss_weight": 1.0, "unet_lr": "1e-4", "text_encoder_lr": "5e-5", "optimizer_type": "AdamW8bit"},
        {"clip_skip": 2, "keep_tokens": 1, "max_token_length": 225, "min_bucket_reso": 320, "flip_aug": True, "optimizer": "adamw8bit"},
    ),
    "SDXL, the UNet alone": ("toml", SDXL, {"train_text_encoder": False, "resolution": 1024, "cache_text_encoder_outputs": True}),
    "SDXL, two rates": (
        "toml", {**SDXL, "network_train_unet_only": False, "text_encoder_lr": [1e-5, 5e-6]}, {"network_reg_lrs": "lora_te1=1e-05 lora_te2=5e-06"}
    ),
    "v-prediction": (
        "list",
        {**SD15, "v2": True, "v_parameterization": True, "zero_terminal_snr": True, "min_snr_gamma": 5, "v_pred_like_loss": 0},
        {"prediction_type": "v_prediction", "zero_terminal_snr": True, "min_snr_gamma": 5.0},
    ),
    "LoCon": (
        "toml", {**SD15, "network_args": ["conv_dim=8", "conv_alpha=4", "rank_dropout=0.1"]}, {"conv_dim": 8, "conv_alpha": 4.0, "rank_dropout": 0.1}
    ),
    "LoHa of LyCORIS": (
        "toml", {**SD15, "network_module": "lycoris.kohya", "network_args": ["algo=loha", "use_tucker=True", "preset=attn-mlp"]},
        {"network_algo": "loha", "network_args": "use_tucker=true"},
    ),
    "LoKr of LyCORIS": (
        "list", {**SD15, "network_module": "lycoris.kohya", "network_args": ["algo=lokr", "factor=8", "decompose_both=True", "bypass_mode=False"]},
        {"network_algo": "lokr", "network_args": "factor=8 decompose_both=true"},
    ),
    "DoRA of LyCORIS": (
        "toml", {**SD15, "network_module": "lycoris.kohya", "network_args": ["algo=lora", "dora_wd=True"]}, {"network_algo": "dora"}
    ),
    "prodigy": (
        "toml",
        {**SD15, "optimizer_type": "Prodigy", "learning_rate": 1.0, "unet_lr": 1.0, "text_encoder_lr": 1.0,
         "optimizer_args": ["decouple=True", "weight_decay=0.01", "d_coef=2", "use_bias_correction=True", "betas=0.9, 0.99"]},
        {"optimizer": "prodigy", "optimizer_args": "decouple=True weight_decay=0.01 d_coef=2 use_bias_correction=True betas=0.9,0.99"},
    ),
    "adafactor": (
        "list",
        {**SDXL, "optimizer_type": "AdaFactor", "optimizer_args": ["scale_parameter=False", "relative_step=False", "warmup_init=False"],
         "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 0.1, "learning_rate": "4e-7"},
        {"optimizer": "adafactor", "lr_warmup_ratio": 0.1, "lr_scheduler": "constant_with_warmup"},
    ),
    "by block": (
        "toml", {**SD15, "network_args": ["down_lr_weight=0,0,0,0,0,0,1,1,1,1,1,1", "mid_lr_weight=1", "up_lr_weight=1,1,1,1,1,1,1,1,1,0,0,0"]},
        {"down_lr_weight": "0,0,0,0,0,0,1,1,1,1,1,1", "mid_lr_weight": "1"},
    ),
    "noise and loss": (
        "list",
        {**SD15, "multires_noise_iterations": 6, "multires_noise_discount": 0.3, "ip_noise_gamma": 0.1, "loss_type": "huber", "huber_schedule": "snr",
         "huber_c": 0.1, "min_timestep": 100, "max_timestep": 900, "huber_scale": 1.0},
        {"multires_noise_iterations": 6, "loss_type": "huber", "max_timestep": 900},
    ),
    "steps, saved and sampled": (
        "toml",
        {**SD15, "max_train_epochs": None, "max_train_steps": 2000, "lr_scheduler": "cosine", "lr_warmup_steps": 200, "save_every_n_steps": 500,
         "save_last_n_steps": 1000, "sample_every_n_steps": 250, "sample_prompts": "a cat --n bad --w 512", "sample_sampler": "euler_a"},
        {"max_train_steps": 2000, "lr_warmup_ratio": 0.1, "save_last_n": 2, "sample_prompts": "a cat --n bad --w 512"},
    ),
    "on from a LoRA, merged bases": (
        "list",
        {**SD15, "network_weights": "before.safetensors", "dim_from_weights": True, "base_weights": ["a.safetensors", "b.safetensors"],
         "base_weights_multiplier": ["0.5", "1"], "scale_weight_norms": 1, "weighted_captions": True},
        {"base_weights": "a.safetensors|b.safetensors", "base_weights_multiplier": "0.5,1", "dim_from_weights": True},
    ),
    "kohya_ss, Standard": (
        "json", GUI,
        {"num_epochs": 8, "lr_warmup_ratio": 0.1, "optimizer": "adamw8bit", "noise_offset": 0.05, "ip_noise_gamma": 0.1, "max_grad_norm": 0.5},
    ),
    "kohya_ss, LoCon of SDXL": (
        "json",
        {**GUI, "LoRA_type": "LyCORIS/LoCon", "sdxl": True, "conv_dim": 8, "dora_wd": True, "sdxl_no_half_vae": True, "max_resolution": "1024,1024"},
        {"network_algo": "dora", "conv_dim": 8, "resolution": 1024},
    ),
    "kohya_ss, by steps with pyramid noise": (
        "json", {**GUI, "max_train_steps": 1500, "noise_offset_type": "Multires", "LyCORIS_preset": "full", "lr_warmup": 0, "noise_offset": 0},
        {"max_train_steps": 1500, "multires_noise_iterations": 8, "lr_warmup_ratio": 0.0},
    ),
    "not all of it is there": (
        "toml",
        {**SD15, "network_module": "networks.dylora", "network_args": ["unit=4"], "optimizer_type": "CAME", "lr_scheduler": "inverse_sqrt",
         "deepspeed": True, "resume": "old-state", "training_comment": "mine", "torch_compile": True, "wandb_api_key": "abc", "learning_rte": 1},
        {"network_algo": "lora", "optimizer": "adamw", "lr_scheduler": "constant_with_warmup"},
    ),
}  # fmt: skip


def write(folder: Path, form: str, table: dict[str, Any]) -> Path:
    """Write a configuration in one of the forms."""
    if form == "json":
        path = folder / "saved.json"
        path.write_text(json.dumps(table), encoding="utf-8")
        return path
    if form == "toml":
        path = folder / "config.toml"
        lines = ["[training]", *(f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None)]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path
    words = []
    for key, value in table.items():
        if value is True:
            words.append(f"--{key}")
        elif value is not False:
            several = value if isinstance(value, list) else [value]
            words.append(f"--{key} " + " ".join(f'"{part}"' for part in several))
    path = folder / "run.sh"
    path.write_text("# mine\naccelerate launch --num_processes 1 train_network.py \\\n  " + " \\\n  ".join(words) + "\n", encoding="utf-8")
    return path


def fated(moved: Moved) -> set[str]:
    return {fate.argument.split()[0].rstrip(":") for fate in moved.fates} | {fate.argument for fate in moved.fates}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_is_imported_without_a_lost_argument(tmp_path: Path, name: str) -> None:
    form, table, wanted = CONFIGURATIONS[name]
    moved = convert(read_all([write(tmp_path, form, table)]), tmp_path)
    config = TrainConfig.load(tomllib.loads(toml_of(moved, "a file")), {}).flat()
    assert {key: config[key] for key in wanted} == wanted
    if form != "json":
        given = {key for key, value in table.items() if value is not None and value is not False}
        assert given <= fated(moved), given - fated(moved)


def test_there_are_twenty_of_them() -> None:
    assert len(CONFIGURATIONS) >= 20


def test_what_is_not_there_is_named_with_the_reason(tmp_path: Path) -> None:
    form, table, _ = CONFIGURATIONS["not all of it is there"]
    moved = convert(read_all([write(tmp_path, form, table)]), tmp_path)
    lost = {fate.argument: fate.words for fate in moved.fates if fate.kind == "unsupported"}
    assert set(lost) == {
        "network_module", "network_args unit", "optimizer_type", "lr_scheduler", "deepspeed", "resume", "training_comment", "torch_compile",
        "wandb_api_key", "learning_rte",
    }  # fmt: skip
    assert "learning_rate may be meant" in lost["learning_rte"] and "DeepSpeed" in lost["deepspeed"]


def test_no_argument_is_in_two_tables_and_all_settings_exist() -> None:
    tables = [set(SAME), set(NEEDLESS), set(UNSUPPORTED), set(OF_THEIR_OWN)]
    assert sum(map(len, tables)) == len(set().union(*tables)) == len(known_arguments())
    plain = TrainConfig().flat()
    assert set(DEFAULTS) <= set(plain) and all(DEFAULTS[key] != plain[key] for key in DEFAULTS)
    assert set(SAME.values()) <= {*plain, "class"}


VALUES = st.one_of(st.booleans(), st.integers(1, 64), st.sampled_from(["", "0.5", "1e-4", "2", "fp16", "cosine"]))


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(known_arguments()), VALUES, max_size=12))
def test_any_arguments_have_a_fate_or_an_error(arguments: dict[str, Any]) -> None:
    arguments = {name: value for name, value in arguments.items() if name not in ("config_file", "dataset_config", "image_dir")}
    try:
        moved = convert(Told(dict(arguments)), Path("/nowhere"))
    except UserError:  # a word where a number belongs
        return
    assert set(arguments) - {"is_reg", "num_repeats"} <= fated(moved)


def pictures(folder: Path, count: int, ending: str) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}{ending}").write_text(f"tok, picture {number}", encoding="utf-8")


DATASET = """
[general]
shuffle_caption = true
caption_extension = ".tags"

[[datasets]]
resolution = [768, 512]
batch_size = 4
enable_bucket = true

  [[datasets.subsets]]
  image_dir = "mira"
  num_repeats = 5
  class_tokens = "mira girl"
  flip_aug = true
  custom_attributes = {a = 1}

  [[datasets.subsets]]
  image_dir = "girls"
  is_reg = true
  num_repeats = 1
"""


def test_a_dataset_toml_becomes_a_tree(tmp_path: Path) -> None:
    pictures(tmp_path / "mira", 6, ".tags")
    pictures(tmp_path / "girls", 3, ".caption")
    (tmp_path / "data.toml").write_text(DATASET, encoding="utf-8")
    (tmp_path / "train.toml").write_text('dataset_config = "data.toml"\noutput_name = "mira"\nmax_train_steps = 100\nlr_warmup_steps = 10\n')
    result = CliRunner().invoke(main, ["import", str(tmp_path / "train.toml"), "--out", str(tmp_path / "mine"), "--keyword", "mira"])
    assert result.exit_code == 0, result.output
    assert "custom_attributes" in result.output.partition("NOT taken over")[2]
    config = TrainConfig.load(tomllib.loads((tmp_path / "mine/dataset.toml").read_text()), {}).at(tmp_path / "mine")
    assert config.data.resolution == 627 and config.data.train_batch_size == 4 and config.data.enable_bucket and config.data.shuffle_caption
    assert config.data.max_train_steps == 100 and config.optimizer.lr_warmup_ratio == 0.1
    assert config.data.num_epochs == 7, "60 samples in batches of 4 are 15 steps"
    assert dict(config.data.subsets[0].own)["flip_aug"] is True
    folders = {f"{'reg' if folder.is_reg else 'img'}/{folder.path.name}": folder for folder in read_tree(config.data.tree)}
    assert set(folders) == {"img/5_mira girl", "reg/1_girls"} and len(folders["img/5_mira girl"].pictures) == 6
    assert (tmp_path / "mine/tree/img/5_mira girl/2.txt").read_text() == "tok, picture 2"
    assert (tmp_path / "mine/tree/reg/1_girls/2.caption").exists()


def test_a_folder_of_folders_is_linked_and_counted(tmp_path: Path) -> None:
    pictures(tmp_path / "img" / "10_tok", 4, ".txt")
    (tmp_path / "run.txt").write_text("--train_data_dir=img --max_train_epochs=5 --lr_warmup_steps=20 --train_batch_size 2 --base_model=x")
    command = ["import", str(tmp_path / "run.txt"), "--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    fates = {row["argument"]: row for row in json.loads(result.stdout)}
    assert fates["lr_warmup_steps"]["words"].startswith("lr_warmup_ratio = 0.2") and fates["base_model"]["kind"] == "unsupported"
    assert (tmp_path / "out/tree/img/10_tok/3.txt").samefile(tmp_path / "img/10_tok/3.txt")
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1 and "--force" in again.output
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "x = = 1", "not valid TOML"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "holds no settings"),
        ("a.txt", '--x "1', "quotation mark"),
        ("a.txt", "hello there", "is no argument"),
    ],
)
def test_files_that_are_none_of_the_forms_are_told(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read_all([tmp_path / name])


def test_words_of_all_shells() -> None:
    text = (
        'accelerate launch --gpu_ids=0 "C:\\sd\\train_network.py" ^\n --output_dir="C:\\my out" ^\n'
        ' --network_args "conv_dim=4" "conv_alpha=1" --flip_aug # mine\n'
    )
    assert from_words(words_of(text)) == {"output_dir": "C:\\my out", "network_args": ["conv_dim=4", "conv_alpha=1"], "flip_aug": True}


def test_settings_that_cannot_stand_together_are_told_and_the_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("--noise_offset 0.1 --multires_noise_iterations 6")
    result = CliRunner().invoke(main, ["import", str(tmp_path / "a.txt"), "--out", str(tmp_path)])
    assert result.exit_code == 1 and "both add coarse noise" in result.output and (tmp_path / "dataset.toml").exists()


def test_the_documentation_names_every_argument() -> None:
    text = (Path(__file__).parents[3] / "docs" / "moving-in.md").read_text(encoding="utf-8")
    assert not [name for name in known_arguments() if f"`{name}`" not in text]
