"""What a run ends in: the LoRA file, proven by reading it back, and a sheet of sample pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.fingerprint import MARK, run_mark
from train.learning import after_training
from train.log import track
from train.prompts import sample_prompts
from train.state import Job, TrainState
from train.verdict import best_of, verdict

if TYPE_CHECKING:
    from torch import Tensor

    from train.families.sd import Model
    from train.validate import Judgement

BEST, LAST = "-best.safetensors", "-last.safetensors"  # the best weights while a run trains, and the last ones after it
# save_precision -> relative error of rounding to it, and half its smallest step near 0
ROUNDING = {"fp16": (2**-11, 2**-25), "bf16": (2**-8, 2**-134), "fp32": (0.0, 0.0)}


@dataclass(frozen=True)
class RunResult:
    """What a run ended with: the LoRA file, its steps, the mean loss at the end, the sample sheet if one was drawn."""

    path: Path
    steps: int
    loss: float
    samples: Path | None


def save_result(job: Job, state: TrainState, course: Sequence[Judgement] = ()) -> RunResult:
    """Save the last weights and the best ones, draw the samples, and only then forget the state, so that a kill repeats no training.

    `course` are the judgements of other runs, by which this one was made as long as it is.
    """
    output, judgements = job.config.output, state.judged()
    path, last, best_path = output.file(".safetensors"), output.file(LAST), output.file(BEST)
    best = best_of(judgements) if judgements and job.config.validation.keep_best else None
    kept = best is not None and best.step != state.step and (best_path.exists() or _holds(path, job, best.step))
    print(save_checked(last if kept else path, job, state))
    if kept and best:
        if best_path.exists():  # else a run that was killed here before has moved it already
            os.replace(best_path, path)
        print(f"{path} is epoch {best.epoch}, the best of {len(judgements)} that were judged; {last.name} is the last")
    elif judgements:
        last.unlink(missing_ok=True)  # of a run before
        best_path.unlink(missing_ok=True)
    held = "the whole model" if job.config.network.full else f"{len(state.network.layers)} layers"
    print(f"{path} saved and read back: {held}, mean loss {state.mean_loss:.4f}")
    for line in after_training(job, state):
        print(line)
    if job.config.network.full:
        save_as_folder(output.file(""), path, job.model)
    samples = draw_samples(job, state, output.file("-samples.png"))
    report(job, state, course)
    output.file("-state.pt").unlink(missing_ok=True)
    return RunResult(path, state.step, state.mean_loss, samples)


def _holds(path: Path, job: Job, step: int) -> bool:
    """Say whether a file is this run's of a step."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            mark = json.loads((file.metadata() or {}).get(MARK, "{}"))
    except (SafetensorError, OSError, ValueError):
        return False
    wanted = json.loads(run_mark(job.config.output, job.fingerprint, step, 0.0))
    return bool((mark.get("run"), mark.get("steps")) == (wanted["run"], step))


def report(job: Job, state: TrainState, course: Sequence[Judgement]) -> None:
    """Write NAME.html and NAME.json, and print what of them a user must not miss."""
    from train.learning import by_block, relative_norms
    from train.per_picture import picture_report, report_lines
    from train.report import write_report

    output, judgements = job.config.output, state.judged() or course
    found = verdict(judgements) if judgements else None
    rows = picture_report(job, state) if output.report_pictures else []
    norms = {} if job.config.network.full else by_block(relative_norms(job, state.network))
    facts = {"verdict": found and found.record(), "pictures": rows, "summary": job.data.summary(), "settings": job.config.flat()}
    records = [judgement.record(judgement is found.best) for judgement in course] if found else []  # the log has its own
    page = write_report(output, {**facts, "norms": norms, "steps": job.steps, "validation": records})
    for line in ([found.sentence] if found else []) + report_lines(rows, job.config.data.tree):
        print(line)
    print(f"{page} shows the run")


def save_as_folder(folder: Path, file: Path, model: Model) -> None:
    """Write the single file of a full fine-tune as a diffusers folder too."""
    from train.checkpoint import save_folder

    save_folder(folder, file, model)
    print(f"{folder} is the same model as a diffusers folder")


def save_checked(path: Path, job: Job, state: TrainState) -> str:
    """Write the LoRA, or the whole model, with its metadata, read it back and compare; returns in one line which readers take it."""
    from train.export import save_lora

    config = job.config
    if config.network.full:
        return save_whole(path, job, state)
    precision, layout = config.output.save_precision, config.output.save_format
    with state.result():
        weights = as_saved(state.network.state(), precision, layout)
    metadata = metadata_of(job, state, ranks_and_alphas(weights))
    save_lora(path, weights, metadata, precision, layout)
    check_saved(path, weights, precision)
    return f"{path.name}: {told_by_readers(path, job.model, config.network.network_algo)}"


def save_whole(path: Path, job: Job, state: TrainState) -> str:
    """Write the model that a full fine-tune made as one file, read it back and compare; returns who reads it."""
    from train.checkpoint import checkpoint_metadata, save_checkpoint

    with state.result():
        count = save_checkpoint(path, job.model, checkpoint_metadata(metadata_of(job, state, {})), job.config.output.save_precision)
    return f"{path.name}: a whole {job.model.family.title} model of {count} tensors under the names that A1111, ComfyUI and diffusers read"


def metadata_of(job: Job, state: TrainState, layers: Mapping[str, Any]) -> dict[str, str]:
    """Say in a file what it is and which run made it; `layers` are facts of an adapter's layers."""
    from train.metadata import build_metadata

    progress = {
        "steps": state.step,
        "epochs": state.epoch,
        "max_train_steps": job.steps,
        "started_at": state.started_at,
        "mixed_precision": job.runtime.precision,
        **layers,
    }
    metadata = build_metadata(job.config, job.model, job.data.summary(), progress)
    return {**metadata, MARK: run_mark(job.config.output, job.fingerprint, state.step, state.mean_loss)}


def as_saved(weights: Mapping[str, Tensor], precision: str, layout: str = "kohya") -> dict[str, Tensor]:
    """Return the weights as a file holds them before they are rounded: the same updates, in numbers that suit precision and readers."""
    from train.balance import balanced, levelled

    # DoRA in kohya's layout is not read by the one reader that wants one alpha; the layout diffusers has a place for all.
    if layout == "kohya" and not any(key.endswith(".dora_scale") for key in weights):
        weights = levelled(weights)
    return dict(weights) if precision == "fp32" else balanced(weights)


def ranks_and_alphas(weights: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """List the ranks and alphas that occur, for the metadata."""
    downs = {key: tensor for key, tensor in weights.items() if key.endswith(".lora_down.weight")}
    return {
        "dims": sorted({tensor.shape[0] for tensor in downs.values()}),
        "alphas": sorted({float(weights[key.replace("lora_down.weight", "alpha")]) for key in downs}),
    }


def told_by_readers(path: Path, model: Model, algo: str) -> str:
    """Read a saved file as A1111, ComfyUI and diffusers do, and say in one line which take all of it."""
    from train.adapters import ADAPTERS
    from train.diffusers_layout import is_diffusers
    from train.export import read_file
    from train.readers import layers_of, read_back, sentence

    tensors, metadata = read_file(path)
    layers = len({key.partition(".")[0] for key in tensors})
    if is_diffusers(tensors):
        return f"{len({key.partition('.lora_')[0] for key in tensors})} layers in the layout of diffusers, which diffusers and PEFT read"
    base = layers_of(model.family.name, model.unet, model.text_encoders)
    readings = read_back({key: tensor.shape for key, tensor in tensors.items()}, metadata, base)
    return sentence(readings, ADAPTERS[algo].readers, layers)


def check_saved(path: Path, weights: Mapping[str, Tensor], precision: str) -> None:
    """Read a saved LoRA back; raises UserError if keys, shapes or values are not what was trained, within the precision."""
    from train.export import read_lora

    saved, _ = read_lora(path)
    relative, absolute = ROUNDING[precision]
    wrong = sorted(weights.keys() ^ saved.keys())
    for key in weights.keys() & saved.keys():
        wanted, found = weights[key], saved[key].float()
        if wanted.shape != found.shape or not bool(((wanted - found).abs() <= relative * wanted.abs() + absolute).all()):
            wrong.append(key)
    if wrong:
        raise UserError(
            f"{path} does not hold what was trained ({len(wrong)} tensors differ, {wrong[0]} first); check the disk, "
            'or set save_precision = "fp32", and run again: the trained state is kept'
        )


def draw_samples(job: Job, state: TrainState, path: Path) -> Path | None:
    """Draw each sample prompt, with a few seeds if it names none, into one sheet; None if the settings ask for none."""
    from prep.images import save as save_picture
    from train.sample import Generator
    from train.sheet import grid

    config = job.config
    prompts = sample_prompts(config)
    if not prompts:
        return None
    job.model.to(job.runtime.device)
    generator = Generator(job.model, clip_skip=config.model.clip_skip)
    side = config.data.resolution or job.model.resolution
    rows, words = [], []
    with job.runtime.autocast(), state.result():
        for prompt in track(prompts, "drawing samples", len(prompts)):
            seeds = prompt.seeds(config.output.seed)
            drawn = generator.draw(
                [prompt.prompt] * len(seeds), seeds, steps=prompt.steps, guidance_scale=prompt.guidance_scale,
                negative_prompt=prompt.negative_prompt, size=(prompt.width or side, prompt.height or side),
            )  # fmt: skip
            rows.append(list(drawn))
            words += [prompt.words(seed) for seed in seeds]
    columns = [f"seed {seed}" for seed in prompts[0].seeds(config.output.seed)] if all(prompt.seed is None for prompt in prompts) else []
    sheet = grid(rows, [prompt.prompt for prompt in prompts], columns)
    try:
        save_picture(sheet, path, texts={"parameters": "\n\n".join(words), "Title": f"{config.output.output_name}, step {state.step}"})
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); make room and run again, it goes on from what is saved") from error
    print(f"{path} shows {sum(map(len, rows))} sample pictures")
    return path
