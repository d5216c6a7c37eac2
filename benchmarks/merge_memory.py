"""Peak memory of `train merge` and `train extract` on an SDXL checkpoint of 7 GB, whose numbers are holes in a sparse file.

usage: python -m benchmarks.merge_memory FOLDER [--pickle]

Printed is what the highest resident memory of each command is above that of the libraries and the base's names alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from train.adapters.build import all_targets
from train.export import save_lora
from train.families import FAMILIES
from train.stability import THIRDS, places_of
from train.tensor_stream import NAMES
from train.tools.base_layers import bare_model

DTYPE, RANK = torch.float16, 32


def shapes() -> dict[str, list[int]]:
    """Return the tensors of an SDXL checkpoint."""
    from train.stability import parts_of

    model = bare_model(Path("none"), FAMILIES["sdxl"])
    states, found = {part: module.state_dict() for part, module in parts_of(model).items()}, {}
    for place in places_of(model):
        shape = list(place.to_file(states[place.part][place.key]).shape)
        found[place.name] = [shape[0] * (len(THIRDS) if place.third is not None else 1), *shape[1:]]
    return found


def sparse(path: Path) -> None:
    """Write a checkpoint whose numbers are all 0 and take no room on the disk."""
    header, begin = {}, 0
    for name, shape in shapes().items():
        end = begin + DTYPE.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": NAMES["float16"], "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + begin)


def lora(path: Path) -> None:
    """Write a LoRA of rank 32 on all layers."""
    draw, state = torch.Generator().manual_seed(0), {}
    for target in all_targets(bare_model(Path("none"), FAMILIES["sdxl"])):
        out, *inner = target.module.weight.shape  # type: ignore[union-attr, operator]
        state[f"{target.name}.lora_up.weight"] = torch.randn(out, RANK, *[1] * (len(inner) - 1), generator=draw) * 0.01
        state[f"{target.name}.lora_down.weight"] = torch.randn(RANK, *inner, generator=draw) * 0.01
    save_lora(path, state, {}, "fp16")


RUN = """
import resource, sys
from train.cli import main
try:
    main(sys.argv[1:])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
IMPORTS = """
import resource, sys
from train.tools.base_layers import open_base
open_base(sys.argv[1]).by_tensor
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(code: str, *args: str | Path) -> float:
    """Run a command and return the highest resident memory of it, in GB."""
    found = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(found.stderr)
    return int(found.stdout.split()[-1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pickle", action="store_true", help="The base is a .ckpt.")
    folder, pickled = (args := parser.parse_args()).folder, args.pickle
    folder.mkdir(parents=True, exist_ok=True)
    base, adapter, merged, again = (folder / name for name in ("base.safetensors", "lora.safetensors", "merged.safetensors", "again.safetensors"))
    sparse(base)
    if pickled:
        torch.save({name: torch.zeros(shape, dtype=DTYPE) for name, shape in shapes().items()}, base := folder / "base.ckpt")
    lora(adapter)
    for path in (merged, again):
        path.unlink(missing_ok=True)
    own = peak(IMPORTS, base)
    print(f"{base.stat().st_size / 1e9:.1f} GB of base, {adapter.stat().st_size / 1e9:.2f} GB of LoRA; libraries and names alone: {own:.2f} GB")
    print(f"merge: {peak(RUN, 'merge', adapter, '--base', base, '-o', merged) - own:.2f} GB more")
    print(f"extract: {peak(RUN, 'extract', base, merged, '-o', again, '-d', str(RANK)) - own:.2f} GB more")


if __name__ == "__main__":
    main()
