"""Metadata: all that sd-scripts writes and that makes sense here, in the forms that the readers parse."""

import ast
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from train.config import TrainConfig
from train.families import FAMILIES, load_model
from train.families.sd import Model
from train.metadata import build_metadata

EXAMPLE: dict[str, str] = json.loads(gzip.decompress((Path(__file__).parent / "data" / "metadata-sd15-example.json.gz").read_bytes()))
# Facts about a checkpoint file, of settings that do not exist here, of another program's code, or added only when the file is saved.
LEFT_OUT = {
    "modelspec.implementation_version", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_sd_scripts_commit_hash", "ss_fp8_base", "ss_fp8_base_unet",
    "ss_huber_scale", "ss_resize_interpolation", "ss_max_validation_steps",
    "ss_validate_every_n_epochs", "ss_validate_every_n_steps", "ss_validation_seed", "ss_validation_split", "sshs_legacy_hash", "sshs_model_hash",
}  # fmt: skip
SUMMARY: dict[str, Any] = {
    "train_samples": 32, "reg_samples": 30, "batches_per_epoch": 31, "resolution": [64, 64], "mean_ar_error": 0.25,
    "buckets": [{"size": [64, 64], "count": 62}], "dataset_dirs": {"4_tok": {"n_repeats": 4, "img_count": 8}},
    "reg_dataset_dirs": {"1_cls": {"n_repeats": 1, "img_count": 30}}, "tag_frequency": {"4_tok": {"tok": 8, "ö, [x]": 1}},
}  # fmt: skip
PROGRESS = {"steps": 310, "epochs": 10, "max_train_steps": 310, "started_at": 1795544900.5, "finished_at": 1795544960.25, "mixed_precision": "bf16"}


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


def metadata_of(model: Model, **train: Any) -> dict[str, str]:
    config = TrainConfig.load({"project": {"base": str(model.path), "keyword": "tok", "name": "mine"}, "train": train}, {})
    return build_metadata(config, model, SUMMARY, PROGRESS)


def test_all_keys_that_make_sense_are_there_as_text(model: Model) -> None:
    metadata = metadata_of(model)
    assert not EXAMPLE.keys() - metadata.keys() - LEFT_OUT
    assert all(isinstance(value, str) for value in metadata.values())


def test_values_have_the_examples_forms(model: Model) -> None:
    """Where the example holds JSON, a number, a truth value or a tuple, so do we, or None."""
    metadata = metadata_of(model, unet_lr=1e-4, text_encoder_lr=5e-5, min_snr_gamma=5.0)
    for key in EXAMPLE.keys() & metadata.keys():
        for read in (json.loads, ast.literal_eval):
            try:
                wanted = read(EXAMPLE[key])
            except (ValueError, SyntaxError):
                continue
            assert metadata[key] == "None" or wanted is None or isinstance(read(metadata[key]), type(wanted)), key


def test_what_the_web_ui_reads(model: Model) -> None:
    metadata = metadata_of(model)
    assert (metadata["ss_base_model_version"], metadata["ss_v2"], metadata["ss_network_module"]) == ("sd_v1", "False", "networks.lora")
    assert json.loads(metadata["ss_tag_frequency"]) == SUMMARY["tag_frequency"]
    assert json.loads(metadata["ss_bucket_info"])["buckets"] == {"0": {"resolution": [64, 64], "count": 62}}
    assert json.loads(metadata["ss_dataset_dirs"]) == SUMMARY["dataset_dirs"]
    assert (metadata["ss_resolution"], metadata["ss_output_name"], metadata["ss_sd_model_name"]) == ("(64, 64)", "mine", "tiny")
    assert float(metadata["ss_training_started_at"]) == 1795544900.5
    assert metadata["modelspec.trigger_phrase"] == "tok" and metadata["modelspec.date"].startswith("2026-11-24T")


def test_v_prediction_of_sd2_is_said_in_both_dialects(model: Model) -> None:
    parts = {"unet": model.unet, "vae": model.vae, "text_encoders": model.text_encoders}
    second = Model(FAMILIES["sd2"], Path("sd21"), **parts, scheduler_config={"prediction_type": "v_prediction"})
    metadata = metadata_of(second)
    assert (metadata["ss_base_model_version"], metadata["ss_v2"]) == ("sd_v2_v", "True")
    assert (metadata["modelspec.architecture"], metadata["modelspec.prediction_type"]) == ("stable-diffusion-v2-768-v/lora", "v")


def test_rates_of_parts_that_are_not_trained_are_none(model: Model) -> None:
    metadata = metadata_of(model, train_text_encoder=False, learning_rate=2e-4)
    assert (metadata["ss_unet_lr"], metadata["ss_text_encoder_lr"]) == ("0.0002", "None")
    assert metadata["ss_clip_skip"] == "None" and metadata_of(model, clip_skip=2)["modelspec.encoder_layer"] == "2"


def test_the_adapter_is_said_as_sd_scripts_and_lycoris_say_it(model: Model) -> None:
    plain = metadata_of(model)
    assert (plain["ss_network_dim"], plain["ss_network_alpha"], plain["ss_network_args"]) == ("16", "8.0", "{}")
    metadata = metadata_of(model, network_algo="lokr", network_args="factor=4", conv_dim=8, rank_dropout=0.1)
    assert metadata["ss_network_module"] == "lycoris.kohya"
    arguments = json.loads(metadata["ss_network_args"])
    assert (arguments["algo"], arguments["factor"], arguments["conv_dim"], arguments["rank_dropout"]) == ("lokr", 4, "8", "0.1")
    config = TrainConfig.load({"train": {"base": str(model.path)}}, {})
    several = build_metadata(config, model, SUMMARY, {**PROGRESS, "dims": [4, 8], "alphas": [4.0]})
    assert (several["ss_network_dim"], several["ss_network_alpha"]) == ("Dynamic", "4.0")


def test_whole_settings_and_the_manifests_hash_are_inside_and_no_folders(model: Model, tiny_tree: Path) -> None:
    metadata = metadata_of(model, tree=str(tiny_tree), learning_rate=3e-4, output_dir="/home/somebody/secret/loras")
    settings = json.loads(metadata["atelier_settings"])
    assert settings["learning_rate"] == 3e-4 and settings["output_dir"] == "loras" and settings["tree"] == "tree"
    assert "somebody" not in "".join(metadata.values()) and str(tiny_tree.parent) not in "".join(metadata.values())
    manifest = tiny_tree / "manifest.json"
    assert metadata["atelier_tree_manifest"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    manifest.unlink()
    assert metadata_of(model, tree=str(tiny_tree))["atelier_tree_manifest"] == "None"
