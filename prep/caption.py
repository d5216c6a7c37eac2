"""Caption: compile every picture's caption from its kept scores, without a model, and leave captions written by hand alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import click

from prep.captions import caption_path, join, parse, read_caption, to_words
from prep.edits import EDITS, Policy, with_keyword
from prep.item import Item, Store
from prep.options import UserError, atomic_write, option
from prep.project import Place
from prep.scores import Model, Scores, ScoreStore, picture_key
from prep.step import Step
from prep.taggers import LOCAL, TaggerRow, row_of

# The stamp under which a sidecar notes the text about to be written, so that a run killed halfway does not take its own text for a person's.
WRITING = "writing"


@dataclass(frozen=True)
class Caption(Step, Policy):
    """Compile captions from the scores that `prep tag` kept; takes seconds and no model.

    A caption that was changed by hand stays; delete its file to have it compiled again.
    """

    tagger: str = option("", help="Whose scores to use: a tagger's name or folder (default: the one used last).")
    diff: bool = option(False, help="Show what would change and write nothing.")

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        texts = [hand_text(item) for item in batch]
        if None in texts:
            self._compile([item for item, text in zip(batch, texts, strict=True) if text is None], store)
        for item, text in zip(batch, texts, strict=True):
            text = join(item.tags) if text is None else text
            text = with_keyword(text, item.keyword, self.full_name or item.full_name) if item.keyword else text
            if self.diff:
                show_change(item, text)
            else:
                write_caption(item, text, store)
        return batch

    def _compile(self, items: list[Item], store: Store) -> None:
        """Set the tags of items from their scores; raises UserError for a picture that has none."""
        with ScoreStore.open(store.hidden, create=False) as scores:
            model = scores.last_used(self.tagger)
            if model is None:
                raise UserError(f"{store.hidden} holds no scores of the tagger {self.tagger}; run `prep tag --tagger {self.tagger}` first")
            for item in items:
                policy = replace(self, full_name=self.full_name or item.full_name)  # `prep keyword` may have been told the name
                item.tags = compile_tags(_scores_of(item, model, scores, policy), policy, row_of(model.name))

    def remember(self, item: Item, store: Store) -> None:
        if not self.diff:
            super().remember(item, store)

    def main(self, place: Place) -> None:
        if not self.diff:
            return super().main(place)
        store = self.store(place)  # run_steps would write a report
        items = list(self.read(place, store))
        if not items:
            raise UserError(self.nothing(place))
        for _ in self(items, store):
            pass


def _scores_of(item: Item, model: Model, scores: ScoreStore, policy: Policy) -> Scores:
    values = scores.get(picture_key(item.picture_digest, item.crop), model)
    if values is None:
        raise UserError(f"{item.path} has not been scored by {model.name}; run `prep tag` first")
    return model.labels.read(values, floor=min(limits(policy, row_of(model.name)).values()))


def limits(policy: Policy, row: TaggerRow) -> dict[str, float]:
    """Return the score from which a tag of each category counts: the policy's, else the tagger's own."""
    own = {"character": row.character, "general": row.general}
    asked = {"character": policy.character_threshold, "general": policy.threshold}
    return {category: own[category] if value is None else value for category, value in asked.items()}


def compile_tags(scores: Scores, policy: Policy, row: TaggerRow = LOCAL) -> list[str]:
    """Return the tags of a caption as words: counts, characters, then general tags, stronger before weaker."""
    tags: list[str] = []
    for category, limit in limits(policy, row).items():
        tags += ranked({tag: score for tag, score in scores.get(category, {}).items() if score >= limit})
    for edit in EDITS.values():
        tags = edit(tags, policy)
    rating = ranked(scores.get("rating", {}))[:1]
    if policy.rating != "none":
        tags = [*rating, *tags] if policy.rating == "first" else [*tags, *rating]
    return list(dict.fromkeys(map(to_words, tags)))


def ranked(scores: dict[str, float]) -> list[str]:
    """Sort tags by falling score; equal ones by name, so that the same scores always give the same caption."""
    return sorted(scores, key=lambda tag: (-scores[tag], tag))


def hand_text(item: Item) -> str | None:
    """Return the caption a person wrote for the picture (and note so in `item.hand`), or None if it is ours to compile.

    A file that we did not write is a person's, and so is a caption that came with the raw picture; a deleted or
    emptied file gives the caption back to the compiler.
    """
    text = read_caption(item.path)
    if not text:
        text = item.imported_caption if item.written is None else None
        item.hand = bool(text)
    elif text != item.written and _digest(text) != item.stamps.get(WRITING):
        item.hand = True
    return text if item.hand else None


def write_caption(item: Item, text: str, store: Store) -> None:
    """Make `text` the picture's caption; the file is only touched if it says something else."""
    if read_caption(item.path) != text:
        item.stamps[WRITING] = _digest(text)
        store.save(item)
        atomic_write(caption_path(item.path), text + "\n")
    item.stamps.pop(WRITING, None)
    item.caption = item.written = text


def show_change(item: Item, text: str) -> None:
    """Print which tags would leave and enter a caption."""
    old, new = parse(read_caption(item.path) or ""), parse(text)
    if old != new:
        changes = [f"-{tag}" for tag in old if tag not in new] + [f"+{tag}" for tag in new if tag not in old]
        click.echo(f"{caption_path(item.path)}: {', '.join(changes) or 'another order'}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
