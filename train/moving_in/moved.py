"""What moving in comes to: settings of ours, and the fate of each argument, so that none is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.options import UserError

SET, NEEDLESS, UNSUPPORTED = "set", "needless", "unsupported"
NOTHING: tuple[Any, ...] = (None, "", False, 0, 0.0, [], "0", "none", "None", "false", "False")  # values that ask for nothing


@dataclass(frozen=True)
class Fate:
    """What became of one argument: the settings it set, or the reason why it sets none."""

    argument: str
    value: Any
    kind: str  # SET, NEEDLESS or UNSUPPORTED
    words: str

    @property
    def line(self) -> str:
        return f"{self.argument} = {plain(self.value)}: {self.words}"


@dataclass(frozen=True)
class Source:
    """A folder of pictures and the place in the tree that it is meant for."""

    path: Path
    folder: str  # such as img/10_sks
    caption_extension: str = ""


@dataclass
class Moved:
    """The settings so far. Functions that turn arguments call `set`, `needless` or `unsupported` once for each argument they take."""

    settings: dict[str, Any] = field(default_factory=dict)
    subsets: list[dict[str, Any]] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)

    def set(self, argument: str, value: Any, settings: dict[str, Any], words: str = "") -> None:
        self.settings.update(settings)
        told = ", ".join(f"{key} = {plain(found)}" for key, found in settings.items())
        self.fates.append(Fate(argument, value, SET, f"{told} ({words})" if words else told))

    def needless(self, argument: str, value: Any, words: str) -> None:
        self.fates.append(Fate(argument, value, NEEDLESS, words))

    def unsupported(self, argument: str, value: Any, words: str) -> None:
        """Note what there is not; a value that asks for nothing loses nothing."""
        self.fates.append(Fate(argument, value, NEEDLESS if asks_for_nothing(value) else UNSUPPORTED, words))


def asks_for_nothing(value: Any) -> bool:
    return any(value is nothing or (value == nothing and type(value) is type(nothing)) for nothing in NOTHING)


def plain(value: Any) -> str:
    """Write a value on one line, as TOML does where it can."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(plain, value)) + "]"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def as_bool(value: Any) -> bool:
    return value.strip().lower() not in ("false", "0", "no", "") if isinstance(value, str) else bool(value)


def number(argument: str, value: Any, nothing: float = 0.0) -> float:
    """Read a number, `nothing` for a value that asks for nothing; raises UserError."""
    if asks_for_nothing(value):
        return nothing
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{argument} = {plain(value)} is no number; mend it in the file") from None


def as_list(value: Any) -> list[str]:
    """Read what sd-scripts takes as several words: a list, or one string of them."""
    if asks_for_nothing(value):
        return []
    return [str(part) for part in value] if isinstance(value, list) else str(value).split()
