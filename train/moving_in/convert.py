"""Arguments of sd-scripts into settings of ours: every one is set, needless, or named with the reason."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prep.options import Setting, UserError, settings_of
from train.config import SECTIONS, known_keys
from train.log import BOARDS
from train.moving_in.arguments import DEFAULTS, NEEDLESS, SAME, UNSUPPORTED, known_arguments
from train.moving_in.moved import Moved, as_bool, asks_for_nothing, number
from train.moving_in.network import turn_network, turn_parts, turn_weights
from train.moving_in.optimizer import turn_length, turn_optimizer, turn_schedule, turn_warmup
from train.moving_in.read import Told
from train.moving_in.sources import turn_sources

PATHS = ("base", "vae", "network_weights", "output_dir", "sample_prompts")
PRECISIONS = {"float": "fp32", "fp32": "fp32", "no": "fp32", "fp16": "fp16", "bf16": "bf16"}


def convert(told: Told, root: Path) -> Moved:
    """Turn all that was read; relative paths are meant from `root`, the folder of the first file."""
    moved, arguments = Moved(dict(DEFAULTS)), {**told.general, **told.arguments}
    for name in ("train_batch_size", "batch_size", "resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps",
                 "bucket_no_upscale", "validation_split", "validation_seed", "network_multiplier"):  # fmt: skip
        _shared(name, told, arguments, moved)
    turn_network(arguments, moved)
    turn_weights(arguments, moved)
    turn_parts(arguments, moved)
    turn_optimizer(arguments, moved)
    turn_schedule(arguments, moved)
    samples = turn_sources(arguments, told.subsets, root, moved)
    for turn in (_prediction, _sizes, _saving, _masks, _watching):
        turn(arguments, moved)
    later: dict[str, Any] = {name: arguments.pop(name) for name in ("max_train_epochs", "max_train_steps", "lr_warmup_steps") if name in arguments}
    for name, value in arguments.items():
        _turn(name, value, root, moved)
    turn_warmup(later, moved, turn_length(later, moved, samples))
    for line, reason in told.left.items():
        name, _, value = line.partition(" = ")
        moved.unsupported(name, value, reason)
    return moved


def _shared(name: str, told: Told, arguments: dict[str, Any], moved: Moved) -> None:
    """Move what the data sets say alike to the run's own arguments; what differs between them cannot be so here."""
    values = [subset.pop(name) for subset in told.subsets if name in subset]
    different = [value for number, value in enumerate(values) if value not in values[:number]]
    if different:
        arguments[name] = different[0]
    for value in different[1:]:
        moved.unsupported(name, value, f"it is one for all folders here, and {different[0]} is taken")


def _turn(name: str, value: Any, root: Path, moved: Moved) -> None:
    """Turn an argument that has a row in the tables, or none at all."""
    key = SAME.get(name, "")
    if key and key in known_keys():
        if value is None or value == "" or (SETTINGS[key].optional and key != "unet_lr" and asks_for_nothing(value)):
            moved.needless(name, value, "it asks for nothing")
            return
        moved.set(name, value, {key: allowed(SETTINGS[key], name, typed(SETTINGS[key], value, root))})
    elif key:
        moved.unsupported(name, value, "there is no such setting")
    elif name in NEEDLESS:
        moved.needless(name, value, NEEDLESS[name])
    elif name in UNSUPPORTED:
        moved.unsupported(name, value, UNSUPPORTED[name])
    else:
        near = difflib.get_close_matches(name, known_arguments(), 1)
        moved.unsupported(name, value, "sd-scripts has no such argument" + (f", {near[0]} may be meant" if near else ""))


SETTINGS: Mapping[str, Setting] = {setting.key: setting for section in SECTIONS.values() for setting in settings_of(section)}


def typed(setting: Setting, value: Any, root: Path) -> Any:
    """Return a value in the type of our setting; sd-scripts' command line gives words, and "none" for a number is 0."""
    if setting.type is bool:
        return as_bool(value)
    if setting.type in (int, float):
        found = number(setting.key, value)
        return int(found) if setting.type is int else found
    text = str(value)
    path = root / text
    return str(path.resolve()) if setting.key in PATHS and not Path(text).is_absolute() and text and path.exists() else text


def allowed(setting: Setting, argument: str, value: Any) -> Any:
    """Return a value that our setting takes; raises UserError that names the argument."""
    try:
        return value if setting.type is Path else setting.read(value)
    except UserError as error:
        raise UserError(f"{argument}: {error}; mend it in the file") from None


def _prediction(arguments: dict[str, Any], moved: Moved) -> None:
    if "v_parameterization" in arguments:
        value = arguments.pop("v_parameterization")
        if as_bool(value):
            moved.set("v_parameterization", value, {"prediction_type": "v_prediction"})
        else:
            moved.needless("v_parameterization", value, "the base says what it predicts")


def _sizes(arguments: dict[str, Any], moved: Moved) -> None:
    """Take resolution out, which may be width and height, and max_token_length, which is empty for 75."""
    if "resolution" in arguments:
        value = arguments.pop("resolution")
        sides = [int(number("resolution", side)) for side in (value if isinstance(value, list) else str(value).split(","))]
        side = math.isqrt(abs(sides[0] * sides[-1])) if sides else 0
        if side:
            moved.set("resolution", value, {"resolution": side}, "the side of a square of the same area" if sides[0] != sides[-1] else "")
        else:
            moved.needless("resolution", value, "it is the base's")
    if "max_token_length" in arguments:
        value = arguments.pop("max_token_length")
        moved.set("max_token_length", value, {"max_token_length": int(number("max_token_length", value, 75))})


def _saving(arguments: dict[str, Any], moved: Moved) -> None:
    if "save_precision" in arguments:
        value = arguments.pop("save_precision")
        moved.set("save_precision", value, {"save_precision": PRECISIONS.get(str(value or "float").lower(), "fp32")})
    if "save_model_as" in arguments:
        value = arguments.pop("save_model_as")
        if value in ("safetensors", "", None):
            moved.needless("save_model_as", value, "files are .safetensors")
        else:
            moved.unsupported("save_model_as", value, "files are .safetensors, which all readers take and which can hold no code")
    epochs, ratio = arguments.get("max_train_epochs"), arguments.pop("save_n_epoch_ratio", None)
    if number("save_n_epoch_ratio", ratio) >= 1 and number("max_train_epochs", epochs):
        moved.set("save_n_epoch_ratio", ratio, {"save_every_n_epochs": max(1, int(float(epochs or 1)) // int(float(ratio)))})
    elif ratio is not None:
        moved.unsupported("save_n_epoch_ratio", ratio, "max_train_epochs is not said, so save_every_n_epochs cannot be worked out")
    for name, every in (("save_last_n_epochs", "save_every_n_epochs"), ("save_last_n_steps", "save_every_n_steps")):
        if name not in arguments:
            continue
        value, step = arguments.pop(name), arguments.get(every)
        if asks_for_nothing(value) or asks_for_nothing(step):
            moved.needless(name, value, f"{every} is not set, so there is nothing to delete")
        else:
            moved.set(name, value, {"save_last_n": max(1, int(number(name, value) // max(1.0, number(every, step))))}, "files, not epochs or steps")


def _masks(arguments: dict[str, Any], moved: Moved) -> None:
    if "masked_loss" in arguments:
        value = arguments.pop("masked_loss")
        moved.set("masked_loss", value, {"alpha_mask": as_bool(value) or as_bool(arguments.get("alpha_mask", False))})
        if as_bool(value):
            arguments.pop("alpha_mask", None)


def _watching(arguments: dict[str, Any], moved: Moved) -> None:
    if "log_with" in arguments:
        value = arguments.pop("log_with")
        board = str(value or "").lower()
        if board in BOARDS:
            moved.set("log_with", value, {"log_with": board})
        elif board == "all":
            moved.set("log_with", value, {"log_with": "tensorboard"}, "one of them; wandb is the other")
        else:
            moved.unsupported("log_with", value, f"{' and '.join(BOARDS)} are there")
    if "sample_prompts" in arguments:
        value = arguments.pop("sample_prompts")
        lines = [line for line in str(value or "").splitlines() if line.strip()]
        if not lines:
            moved.needless("sample_prompts", value, "it asks for nothing")
        elif len(lines) == 1 and Path(lines[0]).suffix.lower() in (".toml", ".json"):
            moved.unsupported("sample_prompts", value, "prompts are a .txt file, a line each, in the same syntax")
        else:
            moved.set("sample_prompts", value, {"sample_prompts": lines[0] if len(lines) == 1 else " | ".join(lines)})
