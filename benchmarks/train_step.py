"""How long does a training step take, against the bare modules and against the loop that peft and accelerate make?

usage: python -m benchmarks.train_step BASE [--side 256] [--batch 1] [--steps 5] [--rank 16] [--precision no]

BASE is a diffusers folder of Stable Diffusion 1.x, such as one of random weights. All arms are given the same pictures, base, rank and optimizer
(torch's fused AdamW) and take turns in one process, one precision each since accelerate takes no second, so that what else the machine does
hits all alike: ours as `train run` takes it, the bare bound of train/bare.py, and a loop of the kind that diffusers' text-to-image LoRA
example has: diffusers' UNet and transformers' text encoder in peft, the same layers.
Printed are ratios of medians and of minima, of the time that passed and of what the processor worked: on a shared machine the last tell most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

LEAVES = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]  # of a transformer of the UNet
TEXT_LEAVES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
Step = Callable[[], None]


def make_tree(root: Path, side: int, batch: int) -> None:
    """Write as many pictures of noise as a batch has."""
    folder = root / "tree" / "img" / "1_tok"
    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    for number in range(batch):
        Image.fromarray(chance.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("tok, smile, red hair, outdoors\n", encoding="utf-8")
    (root / "tree" / "manifest.json").write_text("{}", encoding="utf-8")


def job_of(args: argparse.Namespace, root: Path, precision: str) -> tuple[Any, Any, Any]:
    """Return a run's job, its state and its one batch."""
    from train.config import TrainConfig
    from train.processes import Processes
    from train.run import open_base, prepare, start

    settings = {"resolution": args.side, "train_batch_size": args.batch, "network_dim": args.rank, "mixed_precision": precision}
    project = {"base": args.base, "keyword": "tok", "class": "person", "name": "bench"}
    config = TrainConfig.load({"project": project, "train": settings}, {}).at(root)
    runtime, model = open_base(config, Processes())
    job = prepare(config, runtime, model, {})
    return job, start(job, None), next(job.data.batches(0))


def own_arms(job: Any, state: Any, batch: Any) -> dict[str, Step]:
    """Return our step and the bare one."""
    from train.bare import BareStep
    from train.run import take_step

    bare = BareStep(job, state)
    inputs = bare.inputs(batch)

    def bare_step() -> None:
        with bare.attached():
            bare(*inputs)

    def own_step() -> None:
        take_step([batch], job, state)

    return {"ours": own_step, "bare": bare_step}


def peft_arm(args: argparse.Namespace, job: Any, batch: Any, precision: str) -> Step | None:
    """Return the plain loop's step on a copy of the base; None where peft or accelerate is missing."""
    try:
        from accelerate import Accelerator
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        print(f"the loop of peft and accelerate is left out: {error}")
        return None
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    accelerator = Accelerator(mixed_precision=precision, cpu=job.runtime.device.type == "cpu")
    unet = UNet2DConditionModel.from_pretrained(args.base, subfolder="unet", torch_dtype=torch.float32)
    encoder = CLIPTextModel.from_pretrained(args.base, subfolder="text_encoder", torch_dtype=torch.float32)
    unet, encoder = (part.requires_grad_(False).to(job.runtime.device) for part in (unet, encoder))
    if precision != "no":  # as the example does with what is frozen
        unet, encoder = (torch.nn.Module.to(part, dtype=job.runtime.dtype) for part in (unet, encoder))
    for part, leaves in ((unet, LEAVES), (encoder, TEXT_LEAVES)):
        inject_adapter_in_model(LoraConfig(r=args.rank, lora_alpha=8, target_modules=leaves), part)
        for parameter in part.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    parameters = [parameter for part in (unet, encoder) for parameter in part.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    unet, encoder, optimizer = accelerator.prepare(unet, encoder, optimizer)
    moved, schedule, chance = job.runtime.moved(batch), job.schedule, torch.Generator().manual_seed(0)

    def step() -> None:
        with accelerator.accumulate(unet, encoder):
            mean = moved.latent_mean
            latents = mean + moved.latent_std * torch.randn(mean.shape, generator=chance).to(mean.device)
            noise = torch.randn(mean.shape, generator=chance).to(mean.device)
            timesteps = torch.randint(0, len(schedule), (len(mean),), generator=chance)
            states = encoder(moved.input_ids.flatten(0, -2), return_dict=False)[0]
            noisy = schedule.add_noise(latents, noise, timesteps)
            prediction = unet(noisy, timesteps.to(mean.device), states, return_dict=False)[0]
            loss = torch.nn.functional.mse_loss(prediction.float(), noise.float())
            accelerator.gather(loss.repeat(len(mean))).mean()  # the example logs it
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return step


def measure(arms: dict[str, Step], steps: int) -> dict[str, list[tuple[float, float]]]:
    """Let the arms take turns; returns each one's seconds, those that passed and those that the processor worked. The first turn is left out."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for turn in range(steps + 1):
        for name, step in arms.items():
            wait()
            began, worked = time.perf_counter(), time.process_time()
            step()
            wait()
            if turn:
                found[name].append((time.perf_counter() - began, time.process_time() - worked))
    return found


def compared(found: dict[str, list[tuple[float, float]]], which: int) -> dict[str, float]:
    """Return each arm's median, and the ratios of ours to the others', by medians and by minima."""
    columns = {name: [pair[which] for pair in pairs] for name, pairs in found.items()}
    rows: dict[str, float] = {name: statistics.median(column) for name, column in columns.items()}
    for name in columns:
        if name != "ours":
            rows[f"ours / {name}, medians"] = rows["ours"] / rows[name]
            rows[f"ours / {name}, minima"] = min(columns["ours"]) / min(columns[name])
    return {key: round(value, 4) for key, value in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_tree(Path(name), args.side, args.batch)
        job, state, batch = job_of(args, Path(name), args.precision)
        arms = own_arms(job, state, batch)
        if loop := peft_arm(args, job, batch, args.precision):
            arms["peft"] = loop
        found = measure(arms, args.steps)
    shape = {"precision": args.precision, "side": args.side, "batch": args.batch, "threads": torch.get_num_threads()}
    print(json.dumps({**shape, "passed": compared(found, 0), "worked": compared(found, 1)}, indent=1))


if __name__ == "__main__":
    main()
