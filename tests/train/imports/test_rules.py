"""The rules: every argument of sd-scripts has one, whatever its value, and what is made of it is a setting that loads."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.options import UserError
from train.config import known_keys
from train.imports.entries import NETWORK_ARG, Entry, Reading, entries_of
from train.imports.network_rules import NETWORK_ARGS, OWN
from train.imports.optimizer_rules import OPTIMIZERS, ratio_of
from train.imports.outcome import KINDS, SETTINGS, TAKEN, UNKNOWN, Arguments
from train.imports.shell import read_command
from train.imports.translate import RULES, Draft, gathered, outcome_of, translate
from train.optimizers import FOREIGN, row_of

# Arguments of train_network.py and sdxl_train_network.py by the part of sd-scripts that adds them (library/train_util.py, custom_train_functions.py,
# config_util.py, deepspeed_utils.py, sai_model_spec.py, sdxl_train_util.py), as `--help` there names them.
NAMED = """
console_log_level console_log_file console_log_simple v2 v_parameterization pretrained_model_name_or_path tokenizer_cache_dir train_data_dir
cache_info shuffle_caption caption_separator caption_extension caption_extention keep_tokens keep_tokens_separator secondary_separator
enable_wildcard caption_prefix caption_suffix color_aug flip_aug face_crop_aug_range random_crop debug_dataset resolution cache_latents
vae_batch_size cache_latents_to_disk skip_cache_check enable_bucket min_bucket_reso max_bucket_reso bucket_reso_steps bucket_no_upscale
resize_interpolation token_warmup_min token_warmup_step alpha_mask dataset_class caption_dropout_rate caption_dropout_every_n_epochs
caption_tag_dropout_rate reg_data_dir in_json dataset_repeats output_dir output_name huggingface_repo_id huggingface_repo_type
huggingface_path_in_repo huggingface_token huggingface_repo_visibility save_state_to_huggingface resume_from_huggingface async_upload
save_precision save_every_n_epochs save_every_n_steps save_n_epoch_ratio save_last_n_epochs save_last_n_epochs_state save_last_n_steps
save_last_n_steps_state save_state save_state_on_train_end resume train_batch_size max_token_length mem_eff_attn torch_compile dynamo_backend
xformers sdpa vae max_train_steps max_train_epochs max_data_loader_n_workers persistent_data_loader_workers seed gradient_checkpointing
gradient_accumulation_steps mixed_precision full_fp16 full_bf16 fp8_base ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph clip_skip
logging_dir log_with log_prefix log_tracker_name wandb_run_name log_tracker_config wandb_api_key log_config noise_offset
noise_offset_random_strength multires_noise_iterations ip_noise_gamma ip_noise_gamma_random_strength multires_noise_discount adaptive_noise_scale
zero_terminal_snr min_timestep max_timestep loss_type huber_schedule huber_c huber_scale lowram highvram sample_every_n_steps sample_at_first
sample_every_n_epochs sample_prompts sample_sampler config_file output_config metadata_title metadata_author metadata_description
metadata_license metadata_tags prior_loss_weight conditioning_data_dir masked_loss deepspeed zero_stage offload_optimizer_device
offload_optimizer_nvme_path offload_param_device offload_param_nvme_path zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients
optimizer_type use_8bit_adam use_lion_optimizer learning_rate max_grad_norm optimizer_args lr_scheduler_type lr_scheduler_args lr_scheduler
lr_warmup_steps lr_decay_steps lr_scheduler_num_cycles lr_scheduler_power fused_backward_pass lr_scheduler_timescale lr_scheduler_min_lr_ratio
dataset_config min_snr_gamma scale_v_pred_loss_like_noise_pred v_pred_like_loss debiased_estimation_loss weighted_captions
cpu_offload_checkpointing no_metadata save_model_as unet_lr text_encoder_lr fp8_base_unet network_weights network_module network_dim
network_alpha network_dropout network_args network_train_unet_only network_train_text_encoder_only training_comment dim_from_weights
scale_weight_norms base_weights base_weights_multiplier no_half_vae skip_until_initial_step initial_epoch initial_step validation_seed
validation_split validate_every_n_steps validate_every_n_epochs max_validation_steps cache_text_encoder_outputs
cache_text_encoder_outputs_to_disk disable_mmap_load_safetensors
"""
ARGUMENTS = NAMED.split()
KNOWN = set(known_keys())
VALUES: list[Any] = [None, "", 0, 1, -3, 0.5, 1e9, True, False, "1", "0.1", "true", "abc", "a b", "512,768", [1, 2], ["a=1"], [], "x.safetensors"]


def test_every_argument_of_theirs_has_a_rule_for_any_value(tmp_path: Path) -> None:
    assert set(ARGUMENTS) - set(RULES) == {"network_args"}
    for name, value in itertools.product(RULES, VALUES):
        if name == "script":
            continue
        entry = Entry(name, value, "f", name, value)
        outcome = outcome_of(entry, gathered([entry], tmp_path))
        assert outcome.kind in KINDS and outcome.kind != UNKNOWN, name
        assert outcome.kind == TAKEN or outcome.text
        assert set(outcome.settings) <= KNOWN
        for key, made in outcome.settings.items():
            SETTINGS[key].read(made)


@pytest.mark.parametrize("module", ["networks.lora", "lycoris.kohya"])
def test_every_one_of_network_args_has_an_outcome(module: str, tmp_path: Path) -> None:
    for name, value in itertools.product((*NETWORK_ARGS, *OWN), ("", "0", "1", "8", "True", "false", "abc", "0.5")):
        entries = entries_of({"network_module": module, "network_args": [f"{name}={value}"]}, "f", tmp_path)
        arguments = gathered(entries, tmp_path)
        outcome = outcome_of(next(entry for entry in entries if entry.target.startswith(NETWORK_ARG)), arguments)
        assert outcome.kind != UNKNOWN and set(outcome.settings) <= KNOWN


def run(folder: Path, **values: Any) -> Draft:
    return translate([Reading(tuple(entries_of(values, "f", folder)))], folder)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_theirs_is_one_of_ours_that_loads(name: str, tmp_path: Path) -> None:
    draft = run(tmp_path, optimizer_type=name, learning_rate=1e-4, lr_scheduler="cosine")
    ours = draft.train["optimizer"]
    assert ours.startswith(FOREIGN) or row_of(ours).optimizer_class
    if row_of(ours).finds_rate:
        assert draft.train["learning_rate"] == 1.0
    if row_of(ours).schedule_free:
        assert draft.train["lr_scheduler"] == "constant"


def test_a_default_of_theirs_that_differs_is_written_out(tmp_path: Path) -> None:
    draft = run(tmp_path, max_train_epochs=3)
    expected = {"shuffle_caption": False, "keep_tokens": 0, "enable_bucket": False, "alpha_mask": False, "network_dim": 4, "network_alpha": 1.0}
    assert expected.items() <= draft.train.items()
    assert (draft.train["lr_scheduler"], draft.train["learning_rate"], draft.train["mixed_precision"]) == ("constant", 2e-6, "no")
    assert run(tmp_path, optimizer_type="Lion").train["optimizer_args"] == "weight_decay=0.0"
    assert "max_train_steps" not in draft.train and run(tmp_path).train["max_train_steps"] == 1600


@given(total=st.integers(1, 10**7), data=st.data())
@settings(max_examples=100, deadline=None)
def test_warm_up_takes_exactly_as_many_steps_as_there(total: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, total))
    ratio = ratio_of(steps, total)
    assert int(ratio * total) == steps and 0 <= ratio <= 1


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\\^`$%#;\x00\r\n", exclude_categories=("C", "Z")), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z][a-z_]{2,12}", fullmatch=True)


@given(values=st.dictionaries(NAMES, TEXTS.filter(lambda text: not text.startswith("--")), min_size=1, max_size=8), broken=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_command_line_is_read_as_the_shell_would(values: dict[str, str], broken: bool) -> None:
    words = [f"--{name} {shlex.quote(value)}" for name, value in values.items()]
    found = read_command("accelerate launch train_network.py " + (" \\\n  " if broken else " ").join(words))
    assert dict(found) == {"script": "train_network.py", **values}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=3\npython train_network.py --seed=$A --x=${A}b", {"seed": "3", "x": "3b"}),
        ("set A=3\r\npython train_network.py ^\r\n  --seed=%A%", {"seed": "3"}),
        ("$a = 'x y'\npython train_network.py `\n  --n=\"$a\"", {"n": "x y"}),
        ("# --seed=1\npython train_network.py --a b c --d", {"a": ["b", "c"], "d": True}),
        ("--a=1 --b", {"a": "1", "b": True}),
        (r'python "C:\sd\train_network.py" --vae="C:\m\v.pt"', {"vae": r"C:\m\v.pt"}),
    ],
)
def test_scripts_of_three_shells(text: str, found: dict[str, Any]) -> None:
    assert {key: value for key, value in read_command(text) if key != "script"} == found


def test_what_is_of_another_model_is_refused(tmp_path: Path) -> None:
    for values in ({"network_module": "networks.lora_flux"}, {"script": "flux_train_network.py"}):
        with pytest.raises(UserError, match=r"not trained here"):
            run(tmp_path, **values)


def test_names_that_nobody_knows_come_with_the_nearest(tmp_path: Path) -> None:
    notes = {note.name: note.outcome for note in run(tmp_path, learning_rte=1e-4, network_args=["conv_dmi=4"]).notes}
    assert notes["learning_rte"].kind == UNKNOWN and "did you mean learning_rate?" in notes["learning_rte"].text
    assert "did you mean conv_dim?" in notes["network_args conv_dmi"].text


def test_a_name_cut_short_is_completed_as_argparse_does(tmp_path: Path) -> None:
    assert run(tmp_path, max_train_ep=7).train["num_epochs"] == 7


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"network_train_unet_only": True}, {"train_text_encoder": False}),
        ({"text_encoder_lr": 0.0}, {"train_text_encoder": False}),
        ({"text_encoder_lr": ["1e-4", "1e-4"]}, {"text_encoder_lr": 1e-4}),
        ({"resolution": "640"}, {"resolution": 640}),
        ({"bucket_reso_steps": 60}, {"bucket_reso_steps": 64}),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.05}, {"lr_warmup_ratio": 0.05}),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 200, "max_train_steps": 1000}, {"lr_warmup_ratio": 0.2}),
        ({"network_module": "lycoris.kohya", "network_dim": 8, "network_alpha": 2}, {"conv_dim": 8, "conv_alpha": 2.0}),
        ({"network_args": ["conv_dim=8"]}, {"conv_dim": 8, "conv_alpha": 1.0}),
        ({"v2": True}, {"prediction_type": "epsilon"}),
        ({"max_train_epochs": 3, "max_train_steps": 500}, {"num_epochs": 3}),
        ({"save_every_n_steps": 250, "save_last_n_steps": 500}, {"save_last_n": 3}),
    ],
)
def test_what_means_another_thing_is_converted(values: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    found = run(tmp_path, **values).train
    assert {key: found.get(key) for key in expected} == expected


def test_paths_are_meant_from_the_file_and_written_from_the_new_one(tmp_path: Path) -> None:
    arguments = Arguments(out=tmp_path)
    assert arguments.path(str(tmp_path / "a/b.pt")) == "a/b.pt" and arguments.path("/else/b.pt") == "/else/b.pt"
    draft = run(tmp_path, vae="v.pt", pretrained_model_name_or_path="org/model", train_data_dir="D:/x/img")
    assert draft.train["vae"] == "v.pt" and draft.project["base"] == "org/model" and draft.project["tree"] == "D:/x"


PLAUSIBLE: dict[str, list[Any]] = {
    "network_module": ["networks.lora", "lycoris.kohya", "networks.dylora", "mine.lora"],
    "network_args": [
        ["conv_dim=8"],
        ["algo=lokr", "factor=4"],
        ["algo=ia3", "train_on_input=True"],
        ["algo=diag-oft", "rs_lora=True"],
        ["block_alphas=1"],
    ],
    "optimizer_type": [*OPTIMIZERS, "torch.optim.RAdam"],
    "lr_scheduler": ["constant", "cosine", "adafactor", "piecewise_constant", "nothing"],
    "loss_type": ["l2", "huber"],
}


@given(st.dictionaries(st.sampled_from(sorted(set(ARGUMENTS) - {"config_file", "dataset_config"})), st.integers(0, 10**6), max_size=25))
@settings(max_examples=40, deadline=None)
def test_any_arguments_together_load_or_are_told_why_not(tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, int]) -> None:
    values = {name: (PLAUSIBLE.get(name) or VALUES)[number % len(PLAUSIBLE.get(name) or VALUES)] for name, number in chosen.items()}
    folder = tmp_path_factory.getbasetemp()
    try:
        draft = run(folder, **values)  # loads what it made
    except UserError as error:
        assert "mend that in the file" in str(error) or "not trained here" in str(error) or "are no numbers" in str(error)
        return
    named = {note.name.partition(" ")[0] for note in draft.notes}
    assert {name for name, value in values.items() if name != "network_args" or value} <= named
