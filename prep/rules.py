"""Rules: which tag is another name of which (alias) and which follows from which (implication), as two graphs without circles."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path

from prep.options import UserError

KINDS = ("implication", "alias")  # of a row in a user's list; the first if it says none
SHIPPED = {"implication": "implications.csv", "alias": "aliases.csv"}
COLUMNS = ("antecedent", "consequent")

Row = tuple[str, str, str]  # kind, antecedent, consequent


@dataclass(frozen=True)
class Rules:
    """Aliases (tag -> its proper name) and implications (tag -> all tags that follow from it), both followed to their end."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    implications: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def proper(self, tag: str) -> str:
        """Return the name under which a tag goes."""
        return self.aliases.get(tag, tag)

    def implied(self, tag: str) -> frozenset[str]:
        """Return all tags that a tag implies, directly or through others."""
        return self.implications.get(tag, frozenset())


@lru_cache(maxsize=8)
def rules_of(path: str = "") -> Rules:
    """Return the rules that ship, and those of a user's CSV, which win where both name a tag; raises UserError for a bad file."""
    rows = list(_shipped())
    if path:
        own = _read(Path(path))
        renamed = {antecedent for kind, antecedent, _ in own if kind == "alias"}
        rows = [row for row in rows if not (row[0] == "alias" and row[1] in renamed)] + own
    return link(rows, path or "the rules that ship with prep")


def link(rows: Iterable[Row], where: str) -> Rules:
    """Make rules of their rows; raises UserError for an alias or implication that leads back to itself."""
    aliases: dict[str, str] = {}
    direct: dict[str, set[str]] = {}
    rows = list(rows)
    for kind, antecedent, consequent in rows:
        if kind == "alias":
            aliases[antecedent] = consequent
    proper = {tag: _end(tag, aliases, where) for tag in aliases}
    for kind, antecedent, consequent in rows:
        if kind == "implication":
            pair = proper.get(antecedent, antecedent), proper.get(consequent, consequent)
            direct.setdefault(pair[0], set()).add(pair[1])
    return Rules(proper, _closure(direct, where))


def _end(tag: str, aliases: Mapping[str, str], where: str) -> str:
    """Follow an alias to its last name."""
    seen = [tag]
    while seen[-1] in aliases:
        seen.append(aliases[seen[-1]])
        if seen[-1] in seen[:-1]:
            raise UserError(f"{where}: the alias {' -> '.join(seen)} goes round in a circle; take one of these rows out")
    return seen[-1]


def _closure(direct: Mapping[str, set[str]], where: str) -> dict[str, frozenset[str]]:
    """Return for each tag all that follows from it, found depth first."""
    done: dict[str, frozenset[str]] = {}
    for start in direct:
        path = [start]
        while path:
            tag = path[-1]
            nexts = [other for other in sorted(direct.get(tag, ())) if other not in done]
            if not nexts:
                found = direct.get(tag, set())
                done[tag] = frozenset(found.union(*(done[other] for other in found)))
                path.pop()
            elif nexts[0] in path:
                circle = [*path[path.index(nexts[0]) :], nexts[0]]
                raise UserError(f"{where}: {' implies '.join(circle)}, which is a circle; take one of these rows out")
            else:
                path.append(nexts[0])
    return done


def _shipped() -> Iterable[Row]:
    for kind, name in SHIPPED.items():
        text = resources.files("prep").joinpath("data", name).read_text(encoding="utf-8")
        yield from ((kind, row["antecedent"], row["consequent"]) for row in csv.DictReader(text.splitlines()))


def _read(path: Path) -> list[Row]:
    """Read a user's list: the columns antecedent and consequent, and kind if there are aliases in it."""
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
    except FileNotFoundError:
        raise UserError(f"there is no list of rules {path}; check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8 in your editor") from None
    if not set(COLUMNS) <= set(reader.fieldnames or ()):
        raise UserError(f"{path} has no columns {' and '.join(COLUMNS)}; its first line must be {','.join(COLUMNS)} or {','.join(COLUMNS)},kind")
    rows = []
    for number, row in enumerate(reader, 2):
        kind = (row.get("kind") or "").strip() or KINDS[0]
        pair = ["_".join((row[column] or "").split()) for column in COLUMNS]
        if kind not in KINDS or not all(pair) or any("," in tag for tag in pair):
            raise UserError(f"{path} line {number} must name two tags without commas, and {' or '.join(KINDS)} as kind; mend that line")
        rows.append((kind, *pair))
    return rows  # type: ignore[return-value]
