"""The report of a run, finished or running: what its files and its last step tell, as NAME.json for machines and NAME.html for people."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prep.options import UserError, atomic_write, read_settings

if TYPE_CHECKING:
    from train.config import OutputConfig

FORMAT = 1  # of NAME.json; raise it when a key changes its meaning
STRETCHES = 400  # parts of a run of which each gives its extremes to the curves. Measured: 10,000 steps of random numbers then make 180 KB of JSON
CURVES = ("loss", "mean_loss", "grad_norm")  # and all that begins with RATE
RATE = "lr_"
HASHED = 2**31  # bytes up to which a file is hashed; a whole checkpoint takes longer than the page is worth
# Settings that are paths: a page that is shared need not say how its maker's folders are called.
PATHS = ("base", "vae", "tree", "output_dir", "sample_prompts", "network_weights")

Records = Sequence[Mapping[str, Any]]


def write_report(output: OutputConfig, facts: Mapping[str, Any]) -> Path:
    """Write NAME.json and NAME.html from NAME.jsonl, the files beside it and `facts`; returns the page's path.

    Every fact is optional: "verdict" (word, sentence, epoch, step), "pictures" (PictureRow or its fields), "summary"
    (TrainingSet.summary()), "settings" (TrainConfig.flat(), whose tree is where pictures are found), "norms" (block -> norm of the update
    as a share of the base's weights), "steps" (of the whole run), "validation" (records that take the place of the log's), "tree" and
    "settings_now" (those of dataset.toml, taken where no file of the run tells its own). What is not given is taken from the NAME.json before,
    if it tells of the same step, and else from the LoRA's metadata. Raises UserError if there is no log or no room.

    NAME.json holds, null or empty where unknown: format, name, state ("running" or "finished"), verdict, progress (step, steps, epoch,
    mean_loss, seconds), last (the log's last record), validation (records), curves (lists of equal length by name, at curves.step), summary,
    settings, changed (keys of settings that are not the default's), norms (measure, blocks), pictures, samples (file, step), files (file,
    bytes, sha256, model_hash, step, epoch). Numbers that are not finite are null; pictures are told from the tree.
    """
    from train.report_page import render

    records = read_log(output.file(".jsonl"))
    tree = Path(facts.get("tree") or (facts.get("settings") or {}).get("tree") or "")
    report = plain(gather(output, records, facts, tree))
    page = render(report, output.output_dir, tree)
    path = output.file(".html")
    try:
        atomic_write(output.file(".json"), json.dumps(report, indent=1, allow_nan=False) + "\n")
        atomic_write(path, page.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); make room, and `train report` draws it again") from error
    return path


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log's records without a last one that a kill cut short; raises UserError if there are none."""
    records = []
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with_step = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            records += [with_step] if "step" in with_step else []
    except FileNotFoundError:
        raise UserError(f"there is no log {path}; `train run` writes it") from None
    except ValueError as error:
        raise UserError(f"{path} is not a log of a run ({error}); train again with --restart") from None
    if not records:
        raise UserError(f"{path} holds no step yet; wait for the first one")
    return records


def gather(output: OutputConfig, records: Records, facts: Mapping[str, Any], tree: Path) -> dict[str, Any]:
    """Bring together what is known of a run, as NAME.json holds it."""
    last = records[-1]
    before = earlier(output.file(".json"), last)
    files = list(lora_files(output, records))
    ends = (output.file(".safetensors").name, output.file("-last.safetensors").name)
    done = any(file["step"] == last["step"] and file["file"] in ends for file in files)
    metadata = header_of(output.output_dir / files[0]["file"]) if files else {}
    validation = facts.get("validation") or [dict(r["validation"], step=r["step"], epoch=r["epoch"]) for r in records if r.get("validation")]
    settings = facts.get("settings") or before.get("settings") or parsed(metadata.get("atelier_settings")) or facts.get("settings_now") or {}
    steps = facts.get("steps") or (last["step"] if done else before.get("progress", {}).get("steps"))
    blocks = facts.get("norms")
    norms = {"measure": "share of the base's weights", "blocks": blocks} if blocks else before.get("norms")
    norms = norms or norms_of_file(output.file(".safetensors") if done else None)
    return {
        "format": FORMAT,
        "name": output.output_name,
        "state": "finished" if done else "running",
        "verdict": facts.get("verdict") or before.get("verdict"),
        "progress": {
            "step": last["step"],
            "steps": steps,
            "epoch": last.get("epoch"),
            "mean_loss": last.get("mean_loss"),
            "seconds": sum(record.get("seconds") or 0.0 for record in records),
        },
        "last": last,
        "validation": validation,
        "curves": curves(records),
        "summary": facts.get("summary") or before.get("summary") or summary_of(metadata),
        "settings": shown_settings(settings),
        "changed": changed(settings),
        "norms": norms,
        "pictures": [picture_row(row, tree) for row in facts.get("pictures") or before.get("pictures") or ()],
        "samples": list(sample_sheets(output, records)),
        "files": files,
    }


def earlier(path: Path, last: Mapping[str, Any]) -> dict[str, Any]:
    """Read the report before, if it tells of the same last step and so of the same run; else nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    same = isinstance(found, dict) and found.get("format") == FORMAT and found.get("last") == plain(last)
    return found if same else {}


def curves(records: Records) -> dict[str, list[Any]]:
    """Thin a log to what a curve shows of it: of each stretch its last step, and those of the least and greatest loss and gradient."""
    size = max(1, math.ceil(len(records) / STRETCHES))
    kept: set[int] = set()
    for start in range(0, len(records), size):
        stretch = range(start, min(start + size, len(records)))
        kept |= {stretch[-1], *(extreme(stretch, key=lambda n: records[n].get("loss") or 0.0) for extreme in (min, max))}
        kept.add(max(stretch, key=lambda n: records[n].get("grad_norm") or 0.0))
    chosen = [records[n] for n in sorted(kept)]
    names = [*CURVES, *sorted({key for record in chosen for key in record if key.startswith(RATE)})]
    return {name: [record.get(name) for record in chosen] for name in ("step", "epoch", *names)}


def lora_files(output: OutputConfig, records: Records) -> Iterator[dict[str, Any]]:
    """Yield what is known of the weights that this run left: the result, the last, and those kept on the way.

    A file is this run's if the mark in it names a step and the mean loss that the log has there; one of a run before is passed over.
    """
    from train.fingerprint import MARK

    losses = {record["step"]: record.get("mean_loss") for record in records}
    name = re.escape(output.output_name)
    for path in sorted(output.output_dir.glob("*.safetensors"), key=lambda path: (len(path.stem), path.stem)):
        if not re.fullmatch(rf"{name}(-last|-\d{{6}}|-step\d{{8}})?", path.stem):
            continue
        metadata = header_of(path)
        mark = parsed(metadata.get(MARK))
        if mark and losses.get(mark.get("steps"), math.nan) == mark.get("loss"):
            yield {
                "file": path.name,
                "bytes": path.stat().st_size,
                "sha256": sha256(path) if path.stat().st_size <= HASHED else None,
                "model_hash": metadata.get("sshs_model_hash"),
                "step": mark["steps"],
                "epoch": next(record.get("epoch") for record in records if record["step"] == mark["steps"]),
            }


def header_of(path: Path) -> dict[str, str]:
    """Read a safetensors file's metadata, which needs no torch; of a broken file it is empty."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return dict(header.get("__metadata__") or {})
    except (OSError, ValueError, AttributeError, MemoryError, OverflowError):
        return {}


def sha256(path: Path) -> str:
    """Hash a whole file, as model sites and the web UIs do; once, as long as it is not changed, since a live page asks often."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def norms_of_file(path: Path | None) -> dict[str, Any]:
    """Compute the norms of a LoRA file's updates by block; the base's weights, which they would be a share of, are not there."""
    if path is None:  # before torch is imported, which takes seconds
        return {}
    from train.adapters.network import by_layer
    from train.export import read_lora
    from train.learning import by_block
    from train.tools.updates import update_norm

    try:
        layers = by_layer(read_lora(path)[0])
    except UserError:  # a whole checkpoint of a full fine-tune
        return {}
    norms = {name: norm for name, tensors in layers.items() if (norm := update_norm(tensors)) is not None}
    return {"measure": "Frobenius norm", "blocks": by_block(norms)} if norms else {}


def summary_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Say from a file's metadata what the run trained on, under the names of TrainingSet.summary()."""
    if "ss_num_train_images" not in metadata:
        return {}
    buckets = parsed(metadata.get("ss_bucket_info")).get("buckets", {})
    folders = parsed(metadata.get("ss_dataset_dirs"))
    return {
        "pictures": sum(folder.get("img_count", 0) for folder in folders.values()),
        "train_samples": int(metadata["ss_num_train_images"]),
        "reg_samples": int(metadata.get("ss_num_reg_images", 0)),
        "batches_per_epoch": int(metadata.get("ss_num_batches_per_epoch", 0)),
        "buckets": [{"size": bucket["resolution"], "count": bucket["count"]} for bucket in buckets.values()],
        "dataset_dirs": folders,
        "reg_dataset_dirs": parsed(metadata.get("ss_reg_dataset_dirs")),
        "tag_frequency": parsed(metadata.get("ss_tag_frequency")),
    }


def parsed(text: str | None) -> dict[str, Any]:
    """Read a JSON object; what is none, or not there, is an empty one."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def shown_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Cut paths to their names."""
    return {key: Path(str(value)).name if key in PATHS and value else value for key, value in settings.items()}


def changed(settings: Mapping[str, Any]) -> list[str]:
    """List the settings that are not what they are by themselves."""
    from train.config import TrainConfig

    defaults = shown_settings(TrainConfig().flat())
    return [key for key, value in shown_settings(settings).items() if value != defaults.get(key)]


def picture_row(row: Any, tree: Path) -> dict[str, Any]:
    """Return a row about a picture in plain types, its path from the tree."""
    fields = dataclasses.asdict(row) if dataclasses.is_dataclass(row) and not isinstance(row, type) else dict(row)
    path = Path(fields.get("path", ""))
    return {**fields, "path": (path.relative_to(tree) if tree.name and path.is_relative_to(tree) else path).as_posix()}


def sample_sheets(output: OutputConfig, records: Records) -> Iterator[dict[str, Any]]:
    """Yield the sample sheets that were drawn in this run, by step; those of a longer run before are passed over."""
    last = records[-1]["step"]
    found = sorted(
        (int(match[1]), path.name)
        for path in output.output_dir.glob("*-samples-*.png")
        if (match := re.fullmatch(rf"{re.escape(output.output_name)}-samples-(\d{{8}})\.png", path.name))
    )
    yield from ({"file": name, "step": step} for step, name in found if step <= last)
    if output.file("-samples.png").exists():
        yield {"file": output.file("-samples.png").name, "step": last}


def tag_counts(summary: Mapping[str, Any]) -> dict[str, int]:
    """Add up the tags of all folders, the most frequent first."""
    total: Counter[str] = Counter()
    for folder in (summary.get("tag_frequency") or {}).values():
        total.update(folder)
    return dict(total.most_common())


def plain(value: Any) -> Any:
    """Return a value in the types that JSON has; a number that is not finite is None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _report(root: Path) -> None:
    from train.config import TrainConfig

    config = TrainConfig.load(read_settings(root), {}).at(root)
    click.echo(f"{write_report(config.output, {'tree': config.data.tree, 'settings_now': config.flat()})} shows the run")


report_command = click.Command(
    "report",
    params=[click.Argument(["root"], default=".", type=click.Path(path_type=Path))],
    callback=_report,
    help="Draw the report of the project in ROOT from the files of its run, which may be running: lora/NAME.html, and NAME.json for machines.",
)
