"""Control: what a running run is asked from outside, by a file beside its result: save now, or stop after this epoch."""

from __future__ import annotations

from pathlib import Path

import click

from prep.options import UserError, atomic_write, read_settings

WORDS = {"save": "keep the LoRA as it is now", "stop": "stop when the epoch ends", "none": "take back what was asked"}


class Control:
    """The asking side is `train control`; the run looks after every step and answers by deleting the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stopping = False

    def asked(self) -> str:
        """Return a new request, "save" or "stop", and take it off; "" if there is none."""
        try:
            word = self.path.read_text(encoding="utf-8").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""
        self.path.unlink(missing_ok=True)
        if word in ("stop", "none"):
            self.stopping = word == "stop"
        return word if word in WORDS else ""


def _control(word: str, root: Path) -> None:
    from train.config import TrainConfig

    output = TrainConfig.load(read_settings(root), {}).at(root).output
    if not output.file(".jsonl").exists():
        raise UserError(f"no run has been started in {output.output_dir}; `train run` starts one")
    atomic_write(output.file(".control"), word + "\n")
    click.echo(f"asked: {WORDS[word]}; the run answers after its next step")


control_command = click.Command(
    "control",
    params=[
        click.Argument(["word"], type=click.Choice(list(WORDS))),
        click.Argument(["root"], default=".", type=click.Path(path_type=Path)),
    ],
    callback=_control,
    help="Ask a running run to " + "; ".join(f"{meaning} ({word})" for word, meaning in WORDS.items()) + ".",
)
