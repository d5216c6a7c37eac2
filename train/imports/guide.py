"""What becomes of every argument, found by asking its rule: `train import --list`, and the tables of docs/moving-in.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.options import UserError
from train.imports.entries import NETWORK_ARG, Entry
from train.imports.network_rules import NETWORK_ARGS, OWN
from train.imports.outcome import LOST, NEEDLESS, SETTINGS, TAKEN, Arguments, Outcome
from train.imports.translate import RULES, outcome_of

# Values that arguments may have: of each rule those tell that it can read.
NUMBERS: tuple[Any, ...] = (True, 2, 0.5, 150, 512, "2", "2,4", [1e-4, 5e-5])
WORDS = ("cosine", "fp16", "huber", "snr", "networks.lora", "AdamW", "v.safetensors", "p.txt", "ckpt", "locon")
PROBES = (*NUMBERS, *WORDS)
# What other arguments say meanwhile; some mean something only beside another, or without it.
BESIDE = {"save_every_n_steps": 1, "max_train_epochs": 4, "v_parameterization": True, "noise_offset": 0.1, "ip_noise_gamma": 0.1}
AROUND: tuple[Mapping[str, Any], ...] = (
    {},
    {**BESIDE, "lr_scheduler": "cosine"},
    {"multires_noise_iterations": 6, "network_module": "lycoris.kohya", "network_args": ["algo=lokr"]},
    {"network_module": "lycoris.kohya", "network_args": ["algo=ia3"]},
    {"network_module": "lycoris.kohya", "network_args": ["algo=diag-oft"]},
)
EMPTY = ("is off", "is not set")
ASIDE = ("steps_win", "script")  # no arguments of theirs
BOARD = ("log_with", "logging_dir", "use_wandb")  # taken if the package is there
VERSIONED = ("gradient_checkpointing",)  # taken by versions that have it, so that no table can say


@dataclass(frozen=True)
class Row:
    """One argument: its kind (taken, lost or needless), the settings here that it makes, and the reason else."""

    name: str
    kind: str
    settings: tuple[str, ...]
    text: str

    @property
    def is_same(self) -> bool:
        """Tell whether it is the setting of that name, be it one of network_args there."""
        return self.settings == (self.name.removeprefix(NETWORK_ARG),)


def rows() -> list[Row]:
    """Ask all rules, in the order of our own settings and then by name."""
    found = [_row(name, name) for name in RULES if name not in ASIDE]
    found += [_row(f"{NETWORK_ARG}{key}", f"network_args {key}") for key in dict.fromkeys((*NETWORK_ARGS, *OWN))]
    place = {key: number for number, key in enumerate(SETTINGS)}
    return sorted(found, key=lambda row: (min((place.get(key, -1) for key in row.settings), default=len(place)), row.name))


def _row(target: str, name: str) -> Row:
    if target in BOARD:
        return Row(name, TAKEN, ("log_with",), "")
    outcomes = list(_outcomes(target))
    settings = dict.fromkeys(key for outcome in outcomes for key in (*outcome.settings, *(f"[project] {key}" for key in outcome.project)))
    if settings:
        main = [key for key in settings if key == name.rpartition(" ")[2]] or list(settings)
        return Row(name, TAKEN, tuple(main), "")
    reasons = [outcome for outcome in outcomes if outcome.text and outcome.text not in EMPTY]
    lost = next((outcome.text for outcome in reasons if outcome.kind == LOST), "")
    return Row(name, LOST, (), lost) if lost else Row(name, NEEDLESS, (), reasons[0].text if reasons else "")


def _outcomes(target: str) -> Iterator[Outcome]:
    """Yield what the rule answers to the probes; values that it cannot read tell nothing of it."""
    for around in AROUND:
        for value in PROBES:
            values = {**around}
            if target.startswith(NETWORK_ARG):
                values["network_args"] = [*around.get("network_args", []), f"{target.removeprefix(NETWORK_ARG)}={value}"]
            else:
                values[target] = value
            try:
                outcome = outcome_of(Entry(target, value, "", target, value), Arguments(values, out=Path("/")))
            except UserError:
                continue
            if outcome.readable:
                yield outcome


def lines() -> Iterator[str]:
    """Yield one line an argument, for the terminal."""
    for row in rows():
        yield f"{row.name:34} " + (", ".join(row.settings) if row.settings else f"{'not taken' if row.kind == LOST else 'needless'}: {row.text}")


def tables() -> str:
    """Write the tables of docs/moving-in.md: what is taken, what is not, and what is needless."""
    found = [row for row in rows() if row.name not in VERSIONED]
    others = [row for row in found if row.kind == TAKEN and not row.is_same]
    taken = [f"| `{row.name}` | {', '.join(f'`{key}`' for key in row.settings)} |" for row in others]
    same = ", ".join(f"`{row.settings[0]}`" for row in found if row.is_same)
    text = [f"Of the same name, or of that name in `network_args`: {same}.", "", "| theirs | ours |", "|---|---|", *taken]
    for kind, head in ((LOST, "not taken"), (NEEDLESS, "needless")):
        reasons: dict[str, list[str]] = {}
        for row in found:
            if row.kind == kind:
                reasons.setdefault(row.text, []).append(f"`{row.name}`")
        text += ["", f"| {head} | why |", "|---|---|", *(f"| {', '.join(names)} | {reason} |" for reason, names in reasons.items())]
    return "\n".join(text)
