"""A whole model as people share it: one file in the layout of the models' own authors, and the same as a diffusers folder.

Both are streamed, a tensor at a time; what the run did not change is written as the base has it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.clip_bpe import EOS, write_tokenizer
from prep.options import UserError
from train.atomic import atomic_folder
from train.export import PRECISIONS
from train.stability import TEXT, THIRDS, Place, parts_of, places_of
from train.tensor_stream import Entry, differing, write_stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from train.families.sd import Model

# What A1111 and ComfyUI learn from a tensor's mere presence, and the setting of the noise schedule that it stands for.
MARKERS = {"v_pred": ("prediction_type", "v_prediction"), "ztsnr": ("rescale_betas_zero_snr", True)}
OLD_TEXT = "cond_stage_model.transformer."  # where the first anime models lack a level; what is written has it
STALE = "model_ema."  # of a checkpoint to train on: running means of the weights before this run
LOGIT_SCALE = math.log(100)  # CLIP's, trained to its bound; only comparing text with pictures needs it
PAD_TEXT = {EOS: "<|endoftext|>", 0: "!"}  # the token that captions are padded with -> how a tokenizer writes it
# The tokenizer of each text encoder in a diffusers folder.
TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
# Entries of model_index.json that are not parts with weights.
PIPELINES: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {
        "feature_extractor": [None, None], "image_encoder": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
    },
    "StableDiffusionXLPipeline": {"feature_extractor": [None, None], "image_encoder": [None, None], "force_zeros_for_empty_prompt": True},
}  # fmt: skip


def save_checkpoint(path: Path, model: Model, metadata: Mapping[str, str], precision: str) -> int:
    """Write a model as one file in fp16, bf16 or fp32, read it back and compare; returns how many tensors it holds.

    Raises UserError, and leaves nothing half written, if a weight is not a finite number in that precision or the disk is full.
    """
    import torch

    entries = list(file_entries(model, getattr(torch, PRECISIONS[precision])))
    write_stream(path, entries, metadata)
    if wrong := differing(path, entries):
        raise UserError(
            f"{path} does not hold what was trained ({len(wrong)} tensors differ, {wrong[0]} first); check the disk, and run again: "
            "the trained state is kept"
        )
    return len(entries)


def file_entries(model: Model, dtype: torch.dtype) -> Iterator[Entry]:
    """Yield the tensors of a model's single file: its weights in `dtype`, and untouched what the base's file holds beside them."""
    states, names = {part: module.state_dict() for part, module in parts_of(model).items()}, set()
    for name, group in itertools.groupby(sorted(places_of(model), key=lambda place: (place.name, place.third or 0)), key=lambda place: place.name):
        places = list(group)
        names.add(name)
        shapes = [places[0].to_file(states[place.part][place.key]).shape for place in places]
        shape = (sum(found[0] for found in shapes), *shapes[0][1:])
        yield Entry(name, shape, dtype, lambda places=places: _joined(places, states))  # type: ignore[misc]
    for name, tensor in {**_beside(model), **_markers(model)}.items():
        if name not in names:
            yield Entry(name, tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)  # type: ignore[misc]


def _joined(places: list[Place], states: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """Make a file's tensor of the part's, or of the three that it holds one above the other."""
    import torch

    if places[0].third is not None and len(places) != len(THIRDS):
        raise ValueError(f"{places[0].name} wants {THIRDS}, and the model has {[place.key for place in places]}")
    tensors = [place.to_file(states[place.part][place.key]) for place in places]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _beside(model: Model) -> dict[str, Tensor]:
    """Return what a file holds besides the weights that diffusers loads: the base's own, or what published checkpoints have."""
    from safetensors import safe_open

    from train.families.single_file import read, tensor_names

    if not model.path.is_file():
        return _stand_ins(model)
    own = {place.name for place in places_of(model)}
    names = [name for name in tensor_names(model.path) if name not in own and name not in MARKERS and not name.startswith(STALE)]
    names = [name for name in names if not name.startswith(OLD_TEXT) or name.startswith(TEXT["sd1"])]
    if model.path.suffix != ".safetensors":
        found = read(model.path)
        return {name: found[name] for name in names}
    with safe_open(model.path, "pt") as file:
        return {name: file.get_tensor(name) for name in names}


def _stand_ins(model: Model) -> dict[str, Tensor]:
    """Return tensors that readers expect though no picture depends on them: diffusers leaves them out of its folders."""
    import torch

    if model.family.name == "sd2":
        return _unused_layer(model)
    text = "cond_stage_model" if model.family.name == "sd1" else "conditioner.embedders.0"
    found = {f"{text}.transformer.text_model.embeddings.position_ids": torch.arange(model.text_encoders[0].config.max_position_embeddings)[None]}
    if model.family.name == "sdxl":
        found["conditioner.embedders.1.model.logit_scale"] = torch.tensor(LOGIT_SCALE)
    return found


def _unused_layer(model: Model) -> dict[str, Tensor]:
    """Return SD 2.x's last text layer, which the model was made to skip: readers build it, so it is there, as a copy of the one before."""
    import torch

    config, prefix = model.text_encoders[0].config, "cond_stage_model.model."
    last, state = config.num_hidden_layers - 1, {"text_encoder": model.text_encoders[0].state_dict()}
    before, there = f"{prefix}transformer.resblocks.{last}.", f"{prefix}transformer.resblocks.{last + 1}."
    places = sorted((place for place in places_of(model) if place.name.startswith(before)), key=lambda place: (place.name, place.third or 0))
    grouped = itertools.groupby(places, key=lambda place: place.name)
    found = {name.replace(before, there): _joined(list(group), state).detach().half() for name, group in grouped}
    return {**found, f"{prefix}text_projection": torch.eye(config.hidden_size).half(), f"{prefix}logit_scale": torch.tensor(LOGIT_SCALE)}


def _markers(model: Model) -> dict[str, Tensor]:
    """Return the empty tensors by which checkpoints say what they predict; for SD 2.x no reader looks for them."""
    import torch

    if model.family.name == "sd2":
        return {}
    return {name: torch.zeros(0) for name, (key, value) in MARKERS.items() if model.scheduler_config.get(key) == value}


def checkpoint_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Turn a LoRA's metadata into a checkpoint's: no network, and an architecture that is not a LoRA's."""
    kept = {key: value for key, value in metadata.items() if not key.startswith("ss_network_") and key != "ss_scale_weight_norms"}
    return {**kept, "modelspec.architecture": kept["modelspec.architecture"].removesuffix("/lora")}


def save_folder(folder: Path, file: Path, model: Model) -> None:
    """Write the diffusers folder of a single file that `save_checkpoint` made of this model; it appears whole, in place of one before.

    Raises UserError if the disk is full.
    """
    from safetensors import safe_open

    try:
        with atomic_folder(folder) as partial, safe_open(file, "pt") as opened:
            dtype = opened.get_tensor(places_of(model)[0].name).dtype
            for part, module in parts_of(model).items():
                _save_config(module, partial / part, dtype)
                target = partial / part / f"{'model' if part.startswith('text') else 'diffusion_pytorch_model'}.safetensors"
                write_stream(target, _part_entries(part, model, opened, dtype), {"format": "pt"})
            for number, (part, name) in enumerate(TOKENIZERS.items()):
                if part in parts_of(model):
                    write_tokenizer(partial / name, PAD_TEXT[model.family.pad_ids[number]])
            scheduler = _scheduler(model)
            _write_json(partial / "scheduler" / "scheduler_config.json", scheduler)
            _write_json(partial / "model_index.json", _index(model, scheduler["_class_name"]))
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}); make room and run again: {file} and the trained state are kept") from error


def _part_entries(part: str, model: Model, opened: Any, dtype: torch.dtype) -> Iterator[Entry]:
    shapes = {key: tuple(tensor.shape) for key, tensor in parts_of(model)[part].state_dict().items()}
    for place in places_of(model):
        if place.part == part:
            yield Entry(
                place.key, shapes[place.key], dtype, lambda place=place: place.from_file(opened.get_tensor(place.name))  # type: ignore[misc]
            )  # fmt: skip


def _save_config(module: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a part's config.json, without the paths of this machine."""
    name = type(module).__name__
    if name.startswith("CLIP"):
        marks = {"architectures": [name], "model_type": "clip_text_model", "dtype": str(dtype).rpartition(".")[2]}
    else:
        marks = {"_class_name": name}
    _write_json(folder / "config.json", {**module.config, **marks})


def _scheduler(model: Model) -> dict[str, Any]:
    """Return the noise schedule's configuration under a class that knows zero terminal SNR where it is on."""
    config = {key: value for key, value in model.scheduler_config.items() if key != "rescale_betas_zero_snr" or value}
    if config.get("rescale_betas_zero_snr"):
        return {**config, "_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}
    return {"_class_name": "DDIMScheduler", **config}


def _index(model: Model, scheduler: str) -> dict[str, Any]:
    """Return what model_index.json says: which class of which library reads each part."""
    import diffusers

    parts = {part: ["transformers" if part.startswith("text") else "diffusers", type(module).__name__] for part, module in parts_of(model).items()}
    tokenizers = {name: ["transformers", "CLIPTokenizer"] for part, name in TOKENIZERS.items() if part in parts}
    facts = {"_class_name": model.family.pipeline, "_diffusers_version": diffusers.__version__, **PIPELINES[model.family.pipeline]}
    before = model.path / "model_index.json"
    if before.is_file():  # such as force_zeros_for_empty_prompt
        told = json.loads(before.read_text(encoding="utf-8"))
        facts |= {key: told[key] for key in PIPELINES[model.family.pipeline] if isinstance(told.get(key), bool) and key != "requires_safety_checker"}
    return {**facts, **parts, **tokenizers, "scheduler": ["diffusers", scheduler]}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
