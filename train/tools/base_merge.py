"""LoRAs added to a base model's files, a tensor at a time; what they do not change is written as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.atomic import atomic_folder
from train.export import PRECISIONS
from train.families.base import PARTS, WEIGHT_SUFFIXES
from train.tensor_stream import Entry, write_stream
from train.tools.base_layers import FILE, BaseLayers, Slot, open_base

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")  # of the file before


@dataclass(frozen=True)
class Strong:
    """A LoRA sorted by layer, with the strength it gets."""

    path: Path
    layers: Mapping[str, Mapping[str, Tensor]]
    strength: float


def merge_into_base(files: Sequence[Path], strengths: Sequence[float], base: str, output: Path, precision: str = "") -> int:
    """Write a base with LoRAs in it, a single file's as .safetensors and a folder's as a folder; returns how many layers changed.

    Each tensor keeps its precision unless one is given. Raises UserError if a LoRA is for another base, or the output is there already.
    """
    if output.exists():
        raise UserError(f"{output} is there already; give another name, or delete it")
    opened = open_base(base)
    single = FILE in opened.files
    if single and output.suffix != ".safetensors":
        raise UserError(f"{base} is a single file, and {output} does not end in .safetensors; give --output such a name")
    loras = [_read(file, strength, opened) for file, strength in zip(files, strengths, strict=True)]
    if single:
        metadata = {key: value for key, value in opened.files[FILE].metadata.items() if key not in STALE}
        write_stream(output, entries(opened, FILE, loras, precision), metadata)
    else:
        _write_folder(opened, output, loras, precision)
    return len({name for lora in loras for name in lora.layers})


def _read(file: Path, strength: float, base: BaseLayers) -> Strong:
    from train.adapters.network import by_layer, check_family
    from train.export import read_lora

    state = read_lora(file)[0]
    broken = [key for key, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"{file} holds {len(broken)} weights that are not finite numbers ({broken[0]} first); give a LoRA that is whole")
    check_family(state, [slot.target for slot in base.slots.values()], str(file))
    layers = by_layer(state)
    extra = [name for name in layers if name not in base.slots]
    if extra:
        raise UserError(f"{file} holds {len(extra)} layers that {base.path} does not have ({extra[0]} first); give a LoRA made for this base")
    return Strong(file, layers, strength)


def _write_folder(base: BaseLayers, output: Path, loras: Sequence[Strong], precision: str) -> None:
    def ignored(folder: str, names: list[str]) -> set[str]:
        """Leave out what is written anew, and whole models that lie beside the parts."""
        here = Path(folder)
        if here != base.path and here.name not in base.files:
            return set()
        return {name for name in names if name.endswith((*WEIGHT_SUFFIXES, ".ckpt", ".index.json", ".index.fp16.json", ".msgpack", ".h5"))}

    try:
        with atomic_folder(output) as partial:
            shutil.copytree(base.path, partial, ignore=ignored, dirs_exist_ok=True)
            for part in base.files:
                write_stream(partial / part / f"{PARTS[part]}.safetensors", entries(base, part, loras, precision), {"format": "pt"})
    except OSError as error:
        raise UserError(f"cannot write {output} ({error.strerror}); make room, or give another folder") from error


def entries(base: BaseLayers, part: str, loras: Sequence[Strong], precision: str) -> Iterator[Entry]:
    """Yield the tensors of a part's file with the LoRAs in them."""
    import torch

    file, wanted = base.files[part], getattr(torch, PRECISIONS[precision]) if precision else None
    for name in file.names():
        shape, dtype = file.facts(name)
        to = wanted if wanted is not None and dtype.is_floating_point else dtype
        slots = [slot for slot in base.by_tensor.get((part, name), ()) if any(slot.target.name in lora.layers for lora in loras)]
        yield Entry(name, shape, to, _maker(file, name, slots, loras), checked=bool(slots) or to != dtype)


def _maker(file: Any, name: str, slots: Sequence[Slot], loras: Sequence[Strong]) -> Any:
    return lambda: changed(file.read(name), slots, loras) if slots else file.read(name)


def changed(tensor: Tensor, slots: Sequence[Slot], loras: Sequence[Strong]) -> Tensor:
    """Add the updates to a file's tensor; in float64, so that it is rounded once when it is written, however many LoRAs there are."""
    total = tensor.double()
    for slot in slots:
        view = slot.weight(total)
        for lora in loras:
            if slot.target.name in lora.layers:
                view.add_(update_of(slot, tensor, lora.layers[slot.target.name]), alpha=lora.strength)  # computed in float64, with no copy
    return total


def update_of(slot: Slot, tensor: Tensor, held: Mapping[str, Tensor]) -> torch.Tensor:
    """Return the change that a LoRA of any kind makes to a layer's weight, from the file's tensor that the weight lies in."""
    import torch

    from train.adapters.network import Network
    from train.families.base import Target

    name = slot.target.name
    target = Target(name, slot.module(tensor), slot.target.part)
    with torch.no_grad():
        network = Network.from_state([target], {f"{name}.{suffix}": value.float() for suffix, value in held.items()})
        network.remove()
        update: Tensor = network.layers[name].weight_update()  # type: ignore[operator]
    return update
