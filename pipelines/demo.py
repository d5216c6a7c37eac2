"""`prep demo`: a folder of dirty drawings becomes a LoRA, with no download; ends in a table and before-after.png."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.pocket import MARKS
from prep.images import save
from prep.options import PROJECT_FILE, atomic_write

if TYPE_CHECKING:
    from train.run import RunResult

KEYWORD = "mira"
TRAITS = (*MARKS, "purple_hair", "short_hair", "green_eyes")  # of world.DEMO_CHARACTER
# Settings found by measurement (benchmarks/demo_numbers.py): the marks are learned and stay out of the class.
SETTINGS = """\
# The demo's project. `prep run` and `train run` work on it like on any other.
[project]
name = "mira"
keyword = "{keyword}"
class = "{class_prompt}"
base = "pocket"
tagger = "pocket"

[crop]
mode = "square"

# What is the same in every picture is to be learned as the keyword, so it must not stand in the captions by itself.
[caption]
blacklist = "{marks}"

# The class is drawn from the training captions without the keyword, so that only the keyword tells the two apart.
[regularize]
matched = true

[build]
repeats = 4

[train]
train_batch_size = 8
num_epochs = 46
network_dim = 16
network_alpha = 16.0
learning_rate = 2.5e-3
min_snr_gamma = 5.0
# The class has as many samples as the character; at half their weight the marks are learned faster, and still stay out of the class.
prior_loss_weight = 0.5
lr_scheduler = "cosine"
lr_warmup_ratio = 0.05
# 20 pictures are few, so all of them are trained; with more leave this away, and the run judges itself by those that it holds out.
validation_split = 0.0
"""


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False), default="demo")
def demo(out: Path) -> None:
    """Draw 24 dirty pictures of a character into OUT, run the whole chain on them, train a LoRA and show before and after."""
    from pipelines.chains import raw_to_lora
    from pipelines.dirt import write_raw

    raw = write_raw(out / "raw")
    start_project(out)
    print(f"{len(raw)} raw pictures drawn into {out / 'raw'}")
    result = raw_to_lora(out)
    picture = before_after(result.path, out / "before-after.png")
    show_table(out, result)
    print(f"LoRA:   {result.path}\nLook at {picture}")


def start_project(out: Path) -> None:
    """Write the demo's dataset.toml unless it is there, so that a user may change it and run the demo again."""
    from pipelines.pocket import CLASS_PROMPT

    if not (out / PROJECT_FILE).exists():
        atomic_write(out / PROJECT_FILE, SETTINGS.format(keyword=KEYWORD, class_prompt=CLASS_PROMPT, marks=", ".join(TRAITS)))


def before_after(lora: Path, target: Path) -> Path:
    """Draw the same prompts and seeds without and with the LoRA: keyword prompts left, class prompts right."""
    from pipelines.judge import draw, prompts
    from train.sheet import grid

    plain = prompts(4)
    keyword = [f"{KEYWORD}, {prompt}" for prompt in plain]
    seeds = range(100, 100 + len(plain))
    rows = [[*draw(path, keyword, seeds), *draw(path, plain, seeds)] for path in (None, lora)]
    labels = ["with keyword"] * len(plain) + ["without keyword"] * len(plain)
    save(grid(rows, ["base", "base + LoRA"], labels, scale=2), target)
    return target


def show_table(out: Path, result: RunResult) -> None:
    """Print what happened: pictures kept, set aside and why; tokens; steps; loss."""
    from rich.console import Console
    from rich.table import Table

    from prep.store import STORE

    report = json.loads((out / "work" / STORE / "report.json").read_text(encoding="utf-8"))
    ledger = json.loads((out / "work" / STORE / "tokens.json").read_text(encoding="utf-8"))
    table = Table(show_header=False)
    table.add_row("pictures kept", str(report["kept"]))
    for row in report["set_aside"]:
        table.add_row(f"  {row['picture']}", f"set aside: {row['reason']} {row['detail']}")
    longest = max(entry["tokens"] for entry in ledger["captions"])
    table.add_row("longest caption", f"{longest} tokens, so max_token_length = {ledger['max_token_length']}")
    table.add_row("steps", str(result.steps))
    table.add_row("loss", f"{result.loss:.4f}")
    Console().print(table)
