"""Stats: what the captions of a folder say as a whole, because a LoRA learns what they have in common and how often."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from prep.captions import parse, read_caption, wordings
from prep.names import fold
from prep.options import UserError, atomic_write, option
from prep.project import Command, Place
from prep.store import Store

PAGE = "stats.html"
# Folded tags and words that say that somebody is there; of a sentence any word counts.
PERSON = re.compile(
    r"(?:\d+\+?|multiple|several) ?(?:girl|boy|other|people)s?|solo(?: focus)?"
    r"|(?:\w+ )*\b(?:woman|women|man|men|girl|girls|boy|boys|person|people|lady|child|baby|male|female)\b.*"
)


@dataclass(frozen=True)
class TagCount:
    """How many captions hold a tag, and how many of those hold the keyword too; `lift` is how much likelier the keyword makes it (1: not)."""

    tag: str
    count: int
    share: float
    with_keyword: int
    lift: float | None


@dataclass(frozen=True)
class Summary:
    """What is known of a folder's captions."""

    pictures: int
    captions: int
    keyword: str
    with_keyword: int
    tags_per_caption: float
    tags: list[TagCount]  # the commonest first
    once: dict[str, str]  # tag -> the one picture that has it
    without_person: list[str]
    without_caption: list[str]


@dataclass(frozen=True)
class Stats(Command):
    """Count the tags of the captions: how often each is there, with the keyword and alone, which are there once, where nobody is.

    A page with bars goes to .atelier/stats.html beside the captions.
    """

    top: int = option(30, "-n", help="So many tags in the table; the page and --json have all.", min=1)
    json: bool = option(False, help="Print all of it as JSON.")
    keyword: str = option("", "-k", help="The concept word (default: what `prep keyword` was told).")
    html: str = option("", help="Where the page goes instead.")

    def main(self, place: Place) -> None:
        store = Store(place.work)
        captions, keyword = {}, self.keyword
        for item in store.items():
            if not item.dropped:
                captions[item.path.name] = read_caption(item.path)
                keyword = keyword or item.keyword
        if not captions:
            raise UserError(f"there are no pictures in {place.work}; `prep clean` fills it from the raw pictures")
        summary = summarize(captions, keyword)
        page = Path(self.html) if self.html else store.hidden / PAGE
        from prep.stats_page import render

        atomic_write(page, render(summary, str(place.work)))
        if self.json:
            click.echo(json.dumps(asdict(summary), indent=1, ensure_ascii=False))
        else:
            show(summary, self.top)
            click.echo(f"all of it: {page}", err=True)


def summarize(captions: dict[str, str | None], keyword: str = "") -> Summary:
    """Count the tags of captions, picture's name -> caption (None: it has none); spellings of one tag are one."""
    counts: Counter[str] = Counter()
    both: Counter[str] = Counter()
    spelling: dict[str, str] = {}
    where: dict[str, str] = {}
    with_keyword = total = 0
    for name, text in captions.items():
        spelled = all_tags(text or "")
        tags = dict.fromkeys(map(fold, spelled))
        spelling |= {fold(tag): tag for tag in spelled if fold(tag) not in spelling}
        has = bool(keyword) and fold(keyword) in tags
        tags.pop(fold(keyword), None)
        with_keyword += has
        total += len(tags)
        counts.update(list(tags))
        both.update(list(tags) if has else ())
        where |= dict.fromkeys(tags, name)
    filled = sum(bool(text) for text in captions.values())
    rows = [
        TagCount(
            spelling[tag],
            count,
            count / filled,
            both[tag],
            both[tag] / with_keyword * filled / count if with_keyword and with_keyword < filled else None,
        )
        for tag, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return Summary(
        pictures=len(captions),
        captions=filled,
        keyword=keyword,
        with_keyword=with_keyword,
        tags_per_caption=total / filled if filled else 0.0,
        tags=rows,
        once={spelling[tag]: where[tag] for tag in sorted(counts) if counts[tag] == 1},
        without_person=[name for name, text in captions.items() if text and not shows_person(all_tags(text))],
        without_caption=[name for name, text in captions.items() if not text],
    )


def all_tags(text: str) -> list[str]:
    """List the tags and sentences of a picture's captions, of which it may have several, one a line."""
    return [tag for caption in wordings(text) for tag in parse(caption)]


def shows_person(tags: Iterable[str]) -> bool:
    """Say whether the tags or sentences of a caption name a person."""
    return any(PERSON.fullmatch(fold(tag)) for tag in tags)


def show(summary: Summary, top: int) -> None:
    """Print what matters as a table and a few lines."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for line in lines(summary):
        console.print(escape(line), highlight=False)
    table = Table("tag", "captions", "share", *(["with the keyword"] if summary.keyword else []))
    for row in summary.tags[:top]:
        table.add_row(escape(row.tag), str(row.count), f"{row.share:.0%}", *([str(row.with_keyword)] if summary.keyword else []))
    if summary.tags:
        console.print(table)


def lines(summary: Summary) -> list[str]:
    """Say the numbers in sentences."""
    found = [f"{summary.captions} of {summary.pictures} pictures have a caption, of {summary.tags_per_caption:.1f} tags on average"]
    if summary.keyword:
        found.append(f"{summary.with_keyword} captions hold the keyword {summary.keyword}")
    for names, what in ((list(summary.once), "tags are there only once"), (summary.without_person, "captions name no person")):
        if names:
            found.append(f"{len(names)} {what}: {', '.join(names[:10])}{' …' if len(names) > 10 else ''}")
    return found
