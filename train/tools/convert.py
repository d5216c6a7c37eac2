"""`train convert`: the same LoRA in another layout or precision, with its hashes made anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prep.options import UserError

if TYPE_CHECKING:
    from torch import Tensor


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The LoRA file to write.")
@click.option(
    "--format", "layout", type=click.Choice(["kohya", "diffusers", "peft"]), default="kohya", show_default=True,
    help="Layout of the result; diffusers and PEFT share one.",
)  # fmt: skip
@click.option("--precision", type=click.Choice(["fp16", "bf16", "fp32"]), help="Precision of the result; by default each number is kept as it is.")
def convert(file: Path, output: Path, layout: str, precision: str | None) -> None:
    """Write a LoRA FILE of either layout in another layout or precision; its metadata stay."""
    from train.adapters.network import by_layer
    from train.export import read_lora
    from train.tools.updates import save_derived

    state, metadata = read_lora(file)
    layers, layout = by_layer(state), layout.replace("peft", "diffusers")
    if precision:
        save_derived(output, layers, metadata, precision, layout)
    else:
        save_as_it_is(output, state, metadata, layout)
    click.echo(f"{output}: {len(layers)} layers in the layout {layout}, {precision or 'each number as it was'}")


def save_as_it_is(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str], layout: str) -> None:
    """Write a LoRA's numbers under the names of a layout, none of them changed; raises UserError if the file is there already."""
    from safetensors.torch import save

    from prep.options import atomic_write
    from train.export import LAYOUTS, lora_hashes

    if path.exists():
        raise UserError(f"{path} is there already; give another name, or delete it")
    tensors, added = LAYOUTS[layout]({key: tensor.contiguous() for key, tensor in state.items()})
    kept = {key: value for key, value in metadata.items() if not key.startswith("sshs_") and key != "lora_adapter_metadata"}
    told = {**kept, **added}
    try:
        atomic_write(path, save(tensors, {**told, **lora_hashes(tensors, told)}))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); make room, or give another folder") from error
