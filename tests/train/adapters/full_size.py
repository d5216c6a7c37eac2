"""Base models of the real dimensions whose weights take no memory, from the configurations that the project ships."""

from functools import cache
from pathlib import Path

from train.families import FAMILIES
from train.families.parts import empty_parts, model_arguments
from train.families.sd import Model
from train.families.sdxl import SDXLModel
from train.families.single_file import CONFIGS


@cache
def full_size(name: str) -> Model:
    """Make "sd1", "sd2" or "sdxl" on the meta device."""
    kind = SDXLModel if name == "sdxl" else Model
    return kind(FAMILIES[name], Path(name), **model_arguments(empty_parts(CONFIGS / name, FAMILIES[name]), {}))
