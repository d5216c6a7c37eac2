"""Identity: find the pictures that show somebody else than the others do, or nobody, and propose to set them aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import click
import numpy as np

from prep.boxes import state_of
from prep.captions import parse
from prep.embedders import HELP, Embedder, Judged, embedder, row_of
from prep.embedders.looks import View, presence, vectors, view_of
from prep.images import PictureError
from prep.item import Item
from prep.options import UserError, option
from prep.project import Place
from prep.step import Step
from prep.store import Store

STRANGER, NOBODY = "stranger", "no_subject"
OURS = (STRANGER, NOBODY)
SAID = "identity_said"  # the stamp with the reason that we wrote; where it and the sidecar differ, a person has decided
DROPPED = " dropped "  # stands in it between the reason and the stamp of `prep clean`, if the picture was set aside
CLEAN = "clean"
HAND = "identity_kept"  # the stamp of a picture that a person keeps, with the state of the picture
CONCEPTS = ("character", "person", "style", "object")
FACELESS = ("style", "object")
LEAST = 5  # of fewer pictures nobody can say who most of them show
# A set of which more are far from the largest group has no main character: then nobody is a stranger.
MOST = 0.4


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a picture: a reason of OURS or none, the distance if there is one, and the reason in words."""

    reason: str = ""
    distance: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Identity(Step):
    """Find the character or person whom most pictures show, and propose to set aside the pictures that show somebody else, or nobody.

    Nothing is set aside until you say so: look at the proposals, keep what is right with --keep, and set the others aside with --drop.
    What you decided stays so. For a style or an object there is nothing to find, and the pictures stay as they are.
    """

    concept: str = option("character", help="What the pictures are to teach.", choices=CONCEPTS)
    embedder: str = option("tagger", help=f"How it is told who is who: {HELP}.")
    tagger: str = option("pocket", help="Which tagger the embedder tagger asks: a name that `prep tag --help` lists, or a folder.")
    limit: float | None = option(None, help="Distance above which a picture shows somebody else (default: the embedder's own).", min=0, max=2)
    drop: bool = option(False, help="Set aside what is proposed.")
    keep: str = option("", help="Names of pictures, without suffix, that are right whatever was found; several with commas.")
    redo: bool = option(False, help="Forget what was decided by hand.", matters=False)
    device: str = option("auto", help="Where models run; cuda is an error where they cannot.", choices=("auto", "cpu", "cuda"), matters=False)

    @cached_property
    def _embedder(self) -> Embedder:
        return embedder(self.embedder, self.device, self.tagger)

    @cached_property
    def _remarks(self) -> list[str]:
        """What `finish` is to say."""
        return []

    def ready(self, place: Place) -> None:
        if self.concept not in FACELESS:
            row_of(self.embedder)

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        """Gather all items, decide, and pass all on in their order."""
        everything = list(items)
        self._check_keep(everything)
        done = {id(item) for item in everything if item.dropped and item.dropped not in OURS}
        aside = {item.key: (item.dropped, item.detail) for item in everything if item.dropped in OURS}
        for item in everything:
            if item.key in aside:
                item.drop("")
        there = [item for item in everything if not item.dropped and not item.parent]
        verdicts = self._verdicts(there, store)
        for item in there:
            if not item.dropped:
                self._settle(item, verdicts.get(item.key, Verdict()), aside.get(item.key, ("", "")))
        _follow(everything)
        self._sum_up(there)
        for item in everything:
            if id(item) not in done:
                self.remember(item, store)
            yield item

    def _check_keep(self, items: Sequence[Item]) -> None:
        unknown = set(parse(self.keep)) - {item.key for item in items}
        if unknown:
            raise UserError(f"there is no picture named {sorted(unknown)[0]}, which --keep names; give its name without the suffix")

    def _verdicts(self, items: list[Item], store: Store) -> dict[str, Verdict]:
        """Look at the pictures and say of each, by key, what is to be said; a damaged picture is dropped and has none."""
        if self.concept in FACELESS:
            self._remarks.append(f"for a concept that is a {self.concept} `prep identity` has nothing to look for; the pictures stay as they are")
            return {}
        seen, views = [], []
        for item in items:
            try:
                views.append(view_of(item))
                seen.append(item)
            except PictureError as error:
                item.drop(error.reason, str(error))
        there = presence(seen, views, self._tagger, store.hidden)
        judged = self._judge(views, there, store)
        return {item.key: _verdict(here, found) for item, here, found in zip(seen, there, judged, strict=True)}

    @cached_property
    def _tagger(self) -> Any:
        """The tagger that says whether there is anybody; with the embedder tagger it is that one."""
        return self._embedder if self.embedder == "tagger" else embedder("tagger", self.device, self.tagger)

    def _judge(self, views: list[View], there: list[bool | None], store: Store) -> list[Judged | None]:
        """Judge the pictures in which somebody is, or may be; None for the others, and for all if there are too few or no group of them."""
        found = vectors(views, self._embedder, store.hidden)
        places = [index for index, vector in enumerate(found) if vector.size and there[index] is not False]
        result: list[Judged | None] = [None] * len(views)
        if len(places) < LEAST:
            self._remarks.append(f"{len(places)} pictures that show somebody are too few to tell who is a stranger; {LEAST} are needed")
            return result
        judged = self._embedder.judge(np.stack([found[index] for index in places]), self.limit)
        if sum(row.far for row in judged) > MOST * len(judged):
            self._remarks.append("these pictures have no main character: too many differ from the largest group, so no stranger is proposed")
            judged = [Judged(row.distance, False, "") for row in judged]
        for index, row in zip(places, judged, strict=True):
            result[index] = row
        return result

    def _settle(self, item: Item, verdict: Verdict, before: tuple[str, str]) -> None:
        """Write a verdict to an item, unless a person has decided; `before` is the reason of ours for which it was set aside, and the detail."""
        said = item.stamps.pop(SAID, "")
        if self._kept_by_hand(item, said, before[0]):
            verdict = Verdict("", verdict.distance)
        elif before[0] and not said and not self.redo:  # set aside by a person
            item.drop(*before)
            return
        if item.proposed in OURS:
            item.proposed = item.detail = ""
        item.distance = None if verdict.distance is None else round(verdict.distance, 4)
        if not verdict.reason:
            return
        if not item.proposed:
            item.proposed, item.detail = verdict.reason, verdict.detail
            item.stamps[SAID] = verdict.reason
        if self.drop or before[0] or DROPPED in said:
            item.stamps[SAID] = verdict.reason + DROPPED + item.stamps.get(CLEAN, "")
            item.drop(verdict.reason, verdict.detail)

    def _kept_by_hand(self, item: Item, said: str, before: str) -> bool:
        """Say whether a person keeps the item: by --keep, or by having taken our reason out of its sidecar; remember that."""
        state = state_of(item)
        reason, dropped, clean = said.partition(DROPPED)
        # `prep clean` gives what is set aside another chance too, but then its own stamp is another one.
        erased = bool(reason) and not before and (clean == item.stamps.get(CLEAN, "") if dropped else not item.proposed)
        if item.key in parse(self.keep) or (erased and not self.redo):
            item.stamps[HAND] = state
        elif self.redo or item.stamps.get(HAND) != state:
            item.stamps.pop(HAND, None)
        return HAND in item.stamps

    def _sum_up(self, items: Sequence[Item]) -> None:
        for reason, words in ((STRANGER, "show somebody else"), (NOBODY, "show nobody")):
            count = sum(item.proposed == reason and not item.dropped for item in items)
            if count:
                self._remarks.append(f"{count} of {len(items)} pictures seem to {words}; --drop sets them aside, --keep NAME keeps one")

    def finish(self, place: Place, store: Store) -> None:
        for remark in self._remarks:
            click.echo(remark, err=True)


def _verdict(there: bool | None, judged: Judged | None) -> Verdict:
    """Make a verdict of whether somebody is in a picture (None: not known) and of how far it is from the others (None: not known)."""
    distance = judged.distance if judged else None
    if there is False or (there is None and (judged is None or judged.far)):
        return Verdict(NOBODY, distance, "no face was found in it, and the tagger sees nobody" if there is False else "no face was found in it")
    if judged and judged.far:
        return Verdict(STRANGER, distance, f"distance {judged.distance:.2f}" + (f": {judged.why}" if judged.why else ""))
    return Verdict("", distance)


def _follow(items: Sequence[Item]) -> None:
    """What is said of a picture is said of the stages cut out of it as well."""
    parents = {item.key: item for item in items if not item.parent}
    for item in items:
        parent = parents.get(item.parent)
        if parent is None or item.dropped:
            continue
        if item.proposed in OURS:
            item.proposed = item.detail = ""
        item.distance = parent.distance
        if parent.proposed in OURS and not item.proposed:
            item.proposed, item.detail = parent.proposed, parent.detail
        if parent.dropped in OURS:
            item.drop(parent.dropped, parent.detail)
