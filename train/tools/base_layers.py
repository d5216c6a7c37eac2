"""The layers of a base model that a LoRA may change, found in its files by name alone: the model itself is never loaded."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.families import find_base, find_family
from train.families.base import weights_file
from train.tools.weight_files import WeightFile, open_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from train.families.base import Family, Target
    from train.families.sd import Model
    from train.stability import Place

FILE = ""  # the part under which a single file stands


@dataclass(frozen=True)
class Slot:
    """Where a layer's weight lies: in which part's file, under which name, in which form."""

    target: Target
    part: str
    name: str
    place: Place

    def weight(self, tensor: Tensor) -> Tensor:
        """Turn the file's tensor into the layer's weight, a view of it."""
        found = tensor if self.part else self.place.from_file(tensor)
        return found.view(self.target.module.weight.shape)  # type: ignore[operator, union-attr, arg-type]

    def module(self, tensor: Tensor) -> nn.Module:
        """Make the layer itself around the file's tensor, in float32."""
        from torch import nn

        module: Any = copy.deepcopy(self.target.module)
        module.weight = nn.Parameter(self.weight(tensor).float(), requires_grad=False)
        module.bias = None
        return module


@dataclass(frozen=True)
class BaseLayers:
    """A base's files, and the slots in them by the layer's name in LoRA files."""

    path: Path
    family: Family
    files: Mapping[str, WeightFile]  # by part; a single file's part is FILE
    model: Model  # without weights

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """Find all layers; raises UserError if the files lack one."""
        from train.adapters.build import all_targets
        from train.stability import parts_of, places_of

        places = {(place.part, place.key): place for place in places_of(self.model)}
        keys = {id(module): (part, f"{path}.weight") for part, root in parts_of(self.model).items() for path, module in root.named_modules()}
        held = {part: {_plain(name): name for name in file.names()} for part, file in self.files.items()}
        found = {}
        for target in all_targets(self.model):
            place = places[keys[id(target.module)]]
            part = FILE if FILE in self.files else place.part
            wanted = place.key if part else place.name
            name = held[part].get(_plain(wanted))
            if name is None:
                raise UserError(f"{self.path} holds no {wanted}; it may be pruned too far, give a base model that is whole")
            found[target.name] = Slot(target, part, name, place)  # type: ignore[arg-type]
        return found

    @cached_property
    def by_tensor(self) -> dict[tuple[str, str], list[Slot]]:
        """Sort the slots by the file's tensor that they lie in: OpenCLIP holds three in one."""
        found: dict[tuple[str, str], list[Slot]] = {}
        for slot in self.slots.values():
            found.setdefault((slot.part, slot.name), []).append(slot)
        return found

    def weight(self, name: str) -> Tensor:
        """Read one layer's weight (out, in[, k, k]) in the file's type."""
        slot = self.slots[name]
        return slot.weight(self.files[slot.part].read(slot.name))


def open_base(base: str) -> BaseLayers:
    """Open a diffusers folder, a single file or a hub id without loading it; raises UserError if it cannot be used."""
    path = find_base(base)
    family = find_family(path)
    if path.is_file():
        return BaseLayers(path, family, {FILE: open_weights(path)}, bare_model(path, family))
    files = {}
    for part in family.parts:
        found = weights_file(path, part)
        if found is None:
            raise UserError(f"{path / part} has no weights; fetch the base model anew")
        if part != "vae":
            files[part] = open_weights(found)
    return BaseLayers(path, family, files, bare_model(path, family))


def bare_model(path: Path, family: Family) -> Model:
    """Make a model of the base's configurations whose weights take no memory."""
    import importlib

    from train.families import single_file
    from train.families.parts import empty_parts, model_arguments

    folder = path if path.is_dir() else single_file.CONFIGS / family.name
    kind: Any = getattr(importlib.import_module(family.module), "SDXLModel" if family.name == "sdxl" else "Model")
    found: Model = kind(family, path, **model_arguments(empty_parts(folder, family), _scheduler(path, folder)))
    return found


def _scheduler(path: Path, folder: Path) -> dict[str, Any]:
    """Return the noise schedule's configuration with what a file says of itself by names alone."""
    from train.families import single_file

    names = single_file.tensor_names(path) if path.is_file() else set()
    return single_file.scheduler_config(dict.fromkeys(names), folder)  # type: ignore[arg-type]


def _plain(name: str) -> str:
    """Leave out the level that the first anime models lack, and that transformers 5 dropped."""
    return name.replace("transformer.text_model.", "transformer.").removeprefix("text_model.")
