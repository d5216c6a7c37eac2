"""Reading a saved LoRA back: rounding passes, anything else is found."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prep.options import UserError
from train.result import ROUNDING, check_saved

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def weights() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    down = torch.randn(4, 300, generator=draw) * 10 ** torch.empty(4, 300).uniform_(-9, 2, generator=draw)
    return {"lora_unet_a.lora_down.weight": down, "lora_unet_a.lora_up.weight": torch.zeros(300, 4), "lora_unet_a.alpha": torch.tensor(8.0)}


@pytest.mark.parametrize("precision", ROUNDING)
def test_rounding_is_no_fault_but_a_changed_value_is(tmp_path: Path, precision: str) -> None:
    path, wanted = tmp_path / "x.safetensors", weights()
    saved = {key: tensor.to(DTYPES[precision], copy=True) for key, tensor in wanted.items()}
    save_file(saved, path)
    check_saved(path, wanted, precision)
    saved["lora_unet_a.lora_down.weight"][1, 7] *= 1.02
    save_file(saved, path)
    with pytest.raises(UserError, match=r"1 tensors differ, lora_unet_a\.lora_down\.weight"):
        check_saved(path, wanted, precision)


def test_missing_misshapen_and_broken_tensors_are_found(tmp_path: Path) -> None:
    path, wanted = tmp_path / "x.safetensors", weights()
    for change in ({"lora_unet_a.alpha": None}, {"lora_unet_a.lora_up.weight": torch.zeros(4, 300)}, {"lora_unet_a.alpha": torch.tensor(torch.nan)}):
        save_file({key: tensor for key, tensor in {**wanted, **change}.items() if tensor is not None}, path)
        with pytest.raises(UserError, match="does not hold what was trained"):
            check_saved(path, wanted, "fp32")
