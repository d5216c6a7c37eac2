"""What becomes of an argument of sd-scripts: taken, taken with a difference, needless here, lost, or not known at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.options import Setting, UserError, settings_of
from train.config import SECTIONS

TAKEN, CHANGED, NEEDLESS, LOST, UNKNOWN = KINDS = ("taken", "changed", "needless", "lost", "unknown")
OFF: tuple[Any, ...] = (None, "", False, 0, "None", "none", "0", [])  # how configurations say that something is not used
SECRETS = ("wandb_api_key", "huggingface_token")  # never printed, never written


@dataclass(frozen=True)
class Outcome:
    """What becomes of one argument: its kind, the settings of [train] that it makes, and a sentence if it is not plainly taken."""

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    project: Mapping[str, str] = field(default_factory=dict)  # settings of [project]
    readable: bool = True  # False if the value itself is at fault


@dataclass(frozen=True)
class Note:
    """One line of the account: the argument, its value, where it stood, and what became of it."""

    name: str
    value: Any
    where: str
    outcome: Outcome

    def shown(self) -> str:
        """Write the value as one short line; a secret is not shown."""
        text = "***" if self.name in SECRETS else " ".join(str(self.value).split())
        return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class Arguments:
    """All arguments of a run under sd-scripts' names; paths are absolute already where their file said so."""

    values: Mapping[str, Any] = field(default_factory=dict)
    script: str = ""
    out: Path = Path(".")  # folder of the new dataset.toml

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument's value, or the default if it is missing or empty."""
        value = self.values.get(name)
        return default if value is None or value in ("", "None", "none") else value

    def on(self, name: str) -> bool:
        """Tell whether a switch is on."""
        return boolean(self.values.get(name))

    def number(self, name: str, default: float = 0.0) -> float:
        """Return an argument as a number; the default if it is none."""
        try:
            return float(self.get(name, default))
        except (TypeError, ValueError):
            return default

    @property
    def sdxl(self) -> bool:
        return self.script.startswith("sdxl") or self.on("sdxl")

    def path(self, value: str) -> str:
        """Write a path as dataset.toml has it: from its own folder if it lies there, else absolute; another machine's path as it is."""
        path = Path(value)
        return path.relative_to(self.out).as_posix() if path.is_absolute() and path.is_relative_to(self.out) else value


Rule = Callable[[Any, Arguments], Outcome]
SETTINGS: dict[str, Setting] = {setting.key: setting for section in SECTIONS.values() for setting in settings_of(section)}


def boolean(value: Any) -> bool:
    """Read a switch as files write it: true, "true", "1"."""
    return value.strip().lower() in ("true", "1", "yes", "on") if isinstance(value, str) else bool(value)


def listed(value: Any) -> list[str]:
    """Read a list as files write it: a TOML list, or words by commas or blanks."""
    if value in OFF:
        return []
    return [str(v) for v in value] if isinstance(value, list | tuple) else str(value).replace(",", " ").split()


def pairs(value: Any) -> dict[str, str]:
    """Read key=value arguments: a list of them or a line of them; quotes around any are taken off."""
    words = value if isinstance(value, list | tuple) else str(value or "").replace("\n", " ").split()
    found = {}
    for word in words:
        key, _, text = str(word).strip().strip("\"'").partition("=")
        if key:
            found[key.strip()] = text.strip().strip("\"'")
    return found


def coerced(key: str, value: Any) -> Any:
    """Bring a value into the type of our setting, since GUIs save numbers as texts; raises UserError if it cannot stand there."""
    setting = SETTINGS[key]
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    try:
        if setting.type is bool:
            value = boolean(value)
        elif setting.type is int:
            value = int(float(value))
        elif setting.type is float:
            value = float(value)
        elif not isinstance(value, str):
            value = str(value)
    except (TypeError, ValueError):
        raise UserError(f"{value!r} does not fit {key}") from None
    setting.read(value)
    return value


def take(key: str) -> Rule:
    """Make the rule of an argument that is our setting `key`; an empty one says nothing."""

    def rule(value: Any, arguments: Arguments) -> Outcome:
        if value in (None, "", "None") or value == []:
            return not_set()
        return Outcome(TAKEN, {key: coerced(key, value)})

    return rule


def take_some(key: str) -> Rule:
    """Make the rule of an argument that is our setting `key`, and means "not used" if it is 0."""
    return lambda value, arguments: not_set() if value in OFF else take(key)(value, arguments)


def take_if_there(key: str, reason: str) -> Rule:
    """Make the rule of a setting that this version may have; `reason` is said if it has not."""
    return take(key) if key in SETTINGS else lost(reason)


def needless(reason: str) -> Rule:
    """Make the rule of an argument that nothing here depends on."""
    return lambda value, arguments: Outcome(NEEDLESS, text=reason)


def lost(reason: str, off: Iterable[Any] = ()) -> Rule:
    """Make the rule of what cannot be done here; under a value that leaves it off, nothing is lost."""
    unused = {str(value).lower() for value in (*OFF, 0.0, *off)}
    return lambda value, arguments: Outcome(NEEDLESS, text="is off") if str(value).lower() in unused else Outcome(LOST, text=reason)


def not_set() -> Outcome:
    """Say of an empty argument that it is none."""
    return Outcome(NEEDLESS, text="is not set")


def path_of(key: str) -> Rule:
    """Make the rule of a path that is our setting `key`."""
    return lambda value, arguments: not_set() if value in OFF else Outcome(TAKEN, {key: arguments.path(str(value))})
