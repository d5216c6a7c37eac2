"""Settings written once: a frozen dataclass field is the Click option, the dataset.toml key and the Python argument."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
import tempfile
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

PROJECT_FILE = "dataset.toml"
T = TypeVar("T")


class UserError(Exception):
    """A mistake the user can mend; the text is one sentence: what is wrong, where, what to do."""


def option(
    default: Any = dataclasses.MISSING,
    *flags: str,
    help: str,
    choices: Sequence[Any] | Mapping[str, Any] | str | None = None,
    min: float | None = None,
    max: float | None = None,
    matters: bool = True,
) -> Any:
    """Declare a setting as a dataclass field.

    `flags` are extra spellings such as "-n". `choices` may be a table's "module:NAME", read on use. `min` and `max` are inclusive.
    `matters` is False for one that changes how the work is done and not what comes out.
    """
    meta = {"flags": flags, "help": help, "choices": choices, "min": min, "max": max, "matters": matters}
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a settings dataclass, as Click and TOML see it."""

    field: str
    type: type
    optional: bool
    default: Any
    meta: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The name in TOML: the field's, without the underscore that keeps it from being a Python keyword."""
        return self.field.rstrip("_")

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    def click_type(self) -> click.ParamType:
        meta = self.meta
        if meta["choices"] is not None:
            return click.Choice(list(load_object(meta["choices"]) if isinstance(meta["choices"], str) else meta["choices"]))
        if self.type is int:
            return click.IntRange(meta["min"], meta["max"])
        if self.type is float:
            return click.FloatRange(meta["min"], meta["max"])
        return {bool: click.BOOL, str: click.STRING, Path: click.Path(path_type=Path)}[self.type]

    def read(self, value: Any) -> Any:
        """Check a value from TOML and return it in the field's type; raises UserError without the place."""
        wanted = {bool: (bool,), int: (int,), float: (int, float), str: (str,), Path: (str,)}[self.type]
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.type is not bool):
            raise UserError(f"{value!r} is not {_TYPE_WORDS[self.type]}")
        try:
            return self.click_type().convert(value, None, None)
        except click.BadParameter as error:
            raise UserError(error.message.rstrip(".")) from None


_TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes", Path: "a path in quotes"}


def settings_of(cls: type) -> list[Setting]:
    """List the settings that a dataclass declares with `option`."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if "help" not in field.metadata:
            continue
        kinds = typing.get_args(hints[field.name]) if isinstance(hints[field.name], types.UnionType) else (hints[field.name],)
        kind = next(k for k in kinds if k is not type(None))
        found.append(Setting(field.name, kind, type(None) in kinds, field.default, field.metadata))
    return found


def build(cls: type[T], tables: Sequence[tuple[str, Mapping[str, Any]]], given: Mapping[str, Any] | None = None) -> T:
    """Make a settings object from TOML tables (weakest first) and the values given on the command line.

    Only keys that the class knows are taken; unknown keys are the business of `unknown_keys`. All faults are raised at once.
    """
    values, faults = {}, []
    for setting in settings_of(cls):
        for where, table in tables:
            if setting.key in table:
                try:
                    values[setting.field] = setting.read(table[setting.key])
                except UserError as error:
                    faults.append(f"{where} {setting.key}: {error}")
    if faults:
        raise UserError("; ".join(faults))
    return cls(**{**values, **(given or {})})


def unknown_keys(where: str, table: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """Say of each key that nobody knows which known one may be meant."""
    faults = []
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            faults.append(f"{where}: unknown setting {key}" + (f", did you mean {near[0]}?" if near else ""))
    return faults


def read_settings(root: Path) -> dict[str, Any]:
    """Read ROOT/dataset.toml; raises UserError if it is missing or is not TOML."""
    path = root / PROJECT_FILE
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors on Windows begin a file with a BOM
    except FileNotFoundError:
        raise UserError(f"no {PROJECT_FILE} in {root.resolve()}; give a folder, or start a project with `prep new`") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}; mend that line") from None


def load_object(spec: str) -> Any:
    """Import what a table's "module:NAME" row points at."""
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes private files; pictures and captions are for everyone
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def parameters(cls: type) -> Iterator[click.Option]:
    """Yield the Click options of a settings dataclass."""
    for setting in settings_of(cls):
        name = setting.key.replace("_", "-")
        flags = [f"--{name}/--no-{name}"] if setting.type is bool else [f"--{name}"]
        # A required field must pass no default at all: default=None would silence `required`.
        extra: dict[str, Any] = (
            {"required": True} if setting.required else {"default": setting.default, "show_default": setting.default not in ("", None)}
        )
        yield click.Option([setting.field, *flags, *setting.meta["flags"]], type=setting.click_type(), help=setting.meta["help"], **extra)


def given_values(ctx: click.Context, cls: type) -> dict[str, Any]:
    """Pick the values that the user really typed, so that defaults do not beat dataset.toml."""
    typed = click.core.ParameterSource.COMMANDLINE
    return {s.field: ctx.params[s.field] for s in settings_of(cls) if ctx.get_parameter_source(s.field) == typed}


class LazyGroup(click.Group):
    """A group whose commands are rows "module:NAME", imported when asked for; user errors end in one sentence."""

    def __init__(self, *args: Any, table: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        found = load_object(self.table[name])
        return found if isinstance(found, click.Command) else found.command(name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.table and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.table, 1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            raise click.ClickException(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for a name
        return "out of memory; close what else uses the GPU, or give smaller sizes or batches (--debug before the command shows where)"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error} (unexpected; --debug before the command shows where)"
