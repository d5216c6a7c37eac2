"""Caption: compile every picture's caption from its kept scores, without a model, and leave captions written by hand alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import click

from prep.caption_files import MODES, Composed, Current, close, current, write
from prep.captions import caption_path, join, parse, read_caption, wordings
from prep.compile import compile_tags, explain, gathered, limits, spelled, strengths
from prep.edits import Policy, with_keyword, worded
from prep.fitting import fitted
from prep.item import Item
from prep.ledger import Change, Ledger, State
from prep.names import nameless
from prep.options import UserError, option
from prep.project import Place
from prep.rules import rules_of
from prep.scored import Scored
from prep.scores import Scores
from prep.step import ParallelStep
from prep.store import Store
from prep.taggers import LOCAL
from prep.template import FIELDS, Parts, check, fill, speaks
from prep.traits import constant
from prep.undo import undo

KEYWORD = "{keyword}"
HAND = " (its caption is a person's and stays)"
KEEP = 1  # keep_tokens of `train run`, if [train] says nothing else


@dataclass(frozen=True)
class Caption(ParallelStep, Policy):
    """Compile captions from the scores that `prep tag` kept; takes seconds and no model.

    A caption that was changed by hand stays; delete its file to have it compiled again.
    """

    batch: ClassVar[int] = 256  # the disk is waited for once for each

    tagger: str = option("", help="Whose scores to use: a tagger's name or folder (default: the one used last).")
    template: str = option("", help=f"How a caption is put together, of {', '.join(FIELDS)}; 'photo of {{keyword}}, {{caption}}'. Default: tags.")
    keyword: str = option("", help="The concept word for {keyword} in a template (default: what `prep keyword` was told).")
    lines: int = option(0, help="Captions a picture at most, of a template with sentences: one for each sentence; 0: all.", min=0)
    fit: int = option(0, help="Leave out the weakest tags until a caption has at most so many CLIP tokens, such as 75; 0: keep all.", min=0)
    keep_tokens: int | None = option(None, help="The first so many tags are never left out by fit (default: [train] keep_tokens, else 1).", min=0)
    mode: str = option(
        "replace", help="A person's caption stays as it is, or gets our tags appended or prepended; only-missing leaves ours too.", choices=MODES
    )
    diff: bool = option(False, help="Show what would change and write nothing.")
    explain: str = option("", help="Tell of a picture's every tag why it is in the caption or not; write nothing.")
    undo: bool = option(False, help="Bring back what the last command that changed captions found; again: take that back.")

    @classmethod
    def configured(cls, place: Place, given: Mapping[str, Any] | None = None) -> Self:
        """Fill the fields; a list named in dataset.toml may lie beside it, and the trainer's keep_tokens is the default of ours."""
        made = super().configured(place, given)
        found: dict[str, Any] = {}
        for name in ("rules", "words"):
            asked = getattr(made, name)
            if asked and not Path(asked).exists() and (place.root / asked).is_file():
                found[name] = str(place.root / asked)
        keep = place.settings.get("train", {}).get("keep_tokens", KEEP)
        return replace(made, keep_tokens=keep if made.keep_tokens is None and isinstance(keep, int) else made.keep_tokens, **found)

    def ready(self, place: Place) -> None:
        """Raise UserError for a template, list or pattern that cannot be used."""
        check(self.template)
        limits(self, LOCAL)
        rules_of(self.rules)
        worded("", self)

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        """Compile batch after batch, on all cores where there is much to do; with `absorb` all pictures are looked at first."""
        step = replace(self, executor="here") if self.diff else self
        if self.absorb:
            if self.shard:
                raise UserError("absorb looks at all pictures, which a machine that has a share of them cannot; leave --shard or --absorb away")
            items = list(items)
            step = step._knowing(items, store)
        yield from super(Caption, step).__call__(items, store)

    def work(self, batch: list[Item], store: Store) -> Iterator[Item]:
        """Compile the captions of kept items, and write or show them."""
        kept = [item for item in batch if not item.dropped]
        with Ledger.open(store.hidden, create=not self.diff) as ledger:
            changes = self._changes(kept, store, ledger)
            if not self.diff:
                write(changes, kept, store, ledger)
        for change in changes if self.diff else ():
            show_change(change)
        yield from batch

    def _knowing(self, items: list[Item], store: Store) -> Caption:
        """Return the step with the looks that most of the pictures show."""
        with ExitStack() as stack:
            scored = Scored.open(store, self.tagger, stack)
            kept = [item for item in items if not item.dropped]
            rules = rules_of(self.rules)
            tags = ([rules.proper(tag) for tag in gathered(*scored.cut(item, self))] for item in kept)
            return replace(self, constants=constant(tags, self.absorb, rules))

    def _changes(self, items: list[Item], store: Store, ledger: Ledger) -> list[Change]:
        """Compile the captions of items, and return those that are not as their files have them."""
        changes = []
        with ExitStack() as stack:
            scored: Scored | None = None
            for item in items:
                old = read_caption(item.path)
                now = current(item, old, ledger)
                before = State.of(item, old)
                if self._needs_scores(now) and scored is None:
                    scored = Scored.open(store, self.tagger, stack, self.shard)
                text = self._text(item, now, scored)
                if text != old:
                    changes.append(Change(item, before, text))
                if not self.diff:
                    item.caption = item.written = text
        return changes

    def _needs_scores(self, now: Current) -> bool:
        if now.text is not None and self.mode == "only-missing":
            return False
        return not now.hand or self.mode in ("append", "prepend")

    def _text(self, item: Item, now: Current, scored: Scored | None) -> str:
        """Return a picture's caption, and set its tags."""
        if scored is not None and self._needs_scores(now):
            policy = self._named(item)
            scores, cuts = scored.cut(item, policy)
            tags = compile_tags(scores, policy, scored.row, cuts)
            text, item.tags = self._composed(item, now, self._fitting(item, now, tags, scores))
            return text
        if not now.hand:
            return _begun(now.text or "", item, self.full_name)
        text, item.tags = self._composed(item, now, [])
        return text

    def _named(self, item: Item) -> Caption:
        """Return the step with the name that `prep keyword` was told, if it has none itself."""
        return replace(self, full_name=item.full_name) if item.full_name and not self.full_name else self

    def _composed(self, item: Item, now: Current, tags: list[str]) -> Composed:
        """Write tags as a caption, in the template or beside a person's words, with the keyword; the tags returned are ours in it."""
        if now.hand:
            text, ours = MODES[self.mode](item, now.text or "", tags)
            return _begun(text, item, self.full_name), ours
        if not self.template:
            return _begun(join(tags), item, self.full_name), tags
        parts = Parts(self._word(item), tags)
        text = nameless(fill(self.template, parts, item.sentences, self.lines), self.full_name or item.full_name)
        return (text if KEYWORD in self.template else _begun(text, item, self.full_name)), tags

    def _fitting(self, item: Item, now: Current, tags: list[str], scores: Scores) -> list[str]:
        """Return the tags that `fit` leaves; the keyword counts even if `prep keyword` has yet to put it in."""
        if not self.fit:
            return tags

        def written(some: list[str]) -> str:
            text, _ = self._composed(item, now, some)
            return text if item.keyword or not self.keyword or KEYWORD in self.template else with_keyword(text, self.keyword)

        return fitted(tags, strengths(scores, self), self.fit, KEEP if self.keep_tokens is None else self.keep_tokens, written)

    def _word(self, item: Item) -> str:
        word = item.keyword or self.keyword
        if not word and KEYWORD in self.template:
            raise UserError(f"the template {self.template!r} needs a keyword; give one with --keyword, or run `prep keyword` first")
        return word

    def finish(self, place: Place, store: Store) -> None:
        if self.diff:
            return
        close(store, alone=not self.shard)
        wildcard = place.settings.get("train", {}).get("enable_wildcard", False)
        if speaks(self.template) and self.lines != 1 and not wildcard and any(len(item.sentences) > 1 for item in store.stream()):
            click.echo("captions have several lines, of which training reads the first; enable_wildcard under [train] has it read all", err=True)

    def main(self, place: Place) -> None:
        store = self.store(place)
        self.ready(place)
        if self.undo:
            undo(store)
        elif self.explain:
            self._explain(place, store)
        elif self.diff:
            for _ in self(self._all(place, store), store):  # run_steps would write a report
                pass
        else:
            super().main(place)

    def _all(self, place: Place, store: Store) -> list[Item]:
        items = list(self.read(place, store))
        if not items:
            raise UserError(self.nothing(place))
        return items

    def _explain(self, place: Place, store: Store) -> None:
        """Print the fate of each tag of the pictures that `explain` names."""
        items = self._all(place, store)
        named = [item for item in items if self.explain in (item.key, item.path.name)]
        if not named:
            raise UserError(f"there is no picture {self.explain} in {store.folder}; give its name, with or without its suffix")
        step = self._knowing(items, store) if self.absorb else self
        with ExitStack() as stack:
            scored = Scored.open(store, self.tagger, stack)
            for item in named:
                step._explain_one(item, scored)

    def _explain_one(self, item: Item, scored: Scored) -> None:
        now = current(item, read_caption(item.path))
        click.echo(f"{item.path.name}{HAND if now.hand else ''}")
        policy = self._named(item)
        scores, cuts = scored.cut(item, policy)
        tags = compile_tags(scores, policy, scored.row, cuts)
        gone = set(tags) - set(policy._fitting(item, now, tags, scores))
        for fate in explain(scores, policy, cuts):
            if fate.kept and spelled(fate.tag, self.escape) in gone:
                fate = replace(fate, kept=False, why=f"left out to fit {self.fit} tokens")
            click.echo(f"  {fate.line()}")


def _begun(text: str, item: Item, full_name: str) -> str:
    """Put the keyword of `prep keyword` first, if there is one."""
    return with_keyword(text, item.keyword, full_name or item.full_name) if item.keyword else text


def show_change(change: Change) -> None:
    """Print which tags would leave and enter a caption."""
    before, after = wordings(change.before.text or ""), wordings(change.text or "")
    old, new = (list(dict.fromkeys(tag for caption in captions for tag in parse(caption))) for captions in (before, after))
    if before != after:
        changes = [f"-{tag}" for tag in old if tag not in new] + [f"+{tag}" for tag in new if tag not in old]
        click.echo(f"{caption_path(change.item.path)}: {', '.join(changes) or 'another order'}")
