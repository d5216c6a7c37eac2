"""Read a command line: `accelerate launch train_network.py --learning_rate=1e-4 ...`, alone or in a shell, batch or PowerShell file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import Any

from prep.options import UserError

_ASSIGNMENT = re.compile(r"""^\s*(?:export\s+|set\s+)?\$?(?:env:)?([A-Za-z_]\w*)\s*=\s*("[^"]*"|'[^']*'|[^\s#;]*)\s*(?:[#;].*)?$""")
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)|%([A-Za-z_]\w*)%")
LAUNCHER = "launcher "  # what is before the name of an argument that stands before the script


def read_command(text: str) -> list[tuple[str, Any]]:
    """List (name, value) of all arguments, the script under "script"; raises UserError if the quotes do not close."""
    text = re.sub(r"[\\^`][ \t]*\r?\n", " ", text)  # lines that go on: sh, batch, PowerShell
    variables: dict[str, str] = {}
    kept = []
    for line in text.splitlines():
        if line.lstrip().lower().startswith(("#", "rem ", "::", "@echo")):
            continue
        match = _ASSIGNMENT.match(line)
        if match:
            variables[match[1]] = _filled(match[2].strip("\"'"), variables)
        else:
            kept.append(_filled(line, variables))
    command = next((line for line in kept if ".py" in line and "--" in line), " ".join(line for line in kept if line.lstrip().startswith("--")))
    try:
        words = _words(command)
    except ValueError as error:
        raise UserError(f"the command line cannot be read ({error}); see that its quotes close") from None
    return list(_named(words))


def _words(command: str) -> list[str]:
    if "\\" in command and re.search(r"[A-Za-z]:\\|\.\\", command):  # a Windows path, in which the sign is none of a shell's
        command = command.replace("\\", "\\\\") if '\\"' not in command else command
    return shlex.split(command, comments=True)


def _filled(text: str, variables: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2] or match[3], match[0]), text)


def _named(words: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield each argument; several values are a list, none is true."""
    script = next((i for i, word in enumerate(words) if word.endswith(".py")), -1)
    if script >= 0:
        yield "script", PureWindowsPath(words[script]).name
    for name, values in _grouped(words[: max(script, 0)]):
        yield LAUNCHER + name, values[0] if len(values) == 1 else values or True
    for name, values in _grouped(words[script + 1 :]):
        yield name, values[0] if len(values) == 1 else values or True


def _grouped(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    name = ""
    values: list[str] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            if name:
                yield name, values
            name, _, value = word[2:].partition("=")
            values = [value] if _ else []
        elif name:
            values.append(word)
    if name:
        yield name, values
