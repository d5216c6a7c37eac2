"""Recheck: pictures in which the tagger sees a mark are proposed for setting aside, since reading alone overlooks scribbles and logos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prep.item import Item
from prep.marks import MASKED, SCENE
from prep.options import option
from prep.scores import Scores, ScoreStore, picture_key
from prep.step import Step
from prep.store import Store

PROPOSED = "mark_suspected"
# Danbooru's tags for what is laid over a picture; those of TEXT may as well be about a sign in the scene.
MARKS = (
    "watermark", "sample_watermark", "third-party_watermark", "signature", "artist_name", "artist_logo", "web_address", "username",
    "twitter_username", "instagram_username", "patreon_username", "pixiv_username", "weibo_username", "tumblr_username",
    "deviantart_username", "twitter_logo", "patreon_logo", "pixiv_logo", "copyright_notice", "dated", "logo",
)  # fmt: skip
TEXT = ("text_focus", "english_text", "japanese_text", "chinese_text", "korean_text", "text", "copyright_name", "character_name")


def suspected(scores: Scores, threshold: float = 0.5, text: bool = True) -> list[str]:
    """Return the tags by which a tagger says that there is a mark, the surest first; without `text` not those that a sign may cause."""
    general = scores.get("general", {})
    return sorted((tag for tag in (*MARKS, *TEXT * text) if general.get(tag, 0) >= threshold), key=lambda tag: -general[tag])


@dataclass(frozen=True)
class Recheck(Step):
    """After `prep tag`: propose to set aside the pictures in which the tagger sees a mark that `prep marks` has not dealt with.

    Nothing is set aside; a person decides.
    """

    tagger: str = option("", help="Whose scores to use: a tagger's name or folder (default: the one used last).")
    threshold: float = option(0.5, help="Score from which the tagger's word counts.", min=0, max=1)

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        with ScoreStore.open(store.hidden, create=False) as scores:
            model = scores.last_used(self.tagger)
            if model is None:
                return batch
            for item in batch:
                values = scores.get(picture_key(item.picture_digest, item.crop), model)
                if values is not None:
                    self._propose(item, model.labels.read(values, floor=self.threshold))
        return batch

    def _propose(self, item: Item, scores: Scores) -> None:
        """Propose an item for its scores, or take back what was proposed for earlier ones; what others proposed stays."""
        if item.proposed == PROPOSED:
            item.proposed = item.detail = ""
        tags = suspected(scores, self.threshold, text=not item.measures.get(SCENE))
        masked = any(box.label == MASKED for box in item.masked)  # is still in the picture, and the tagger is right
        if tags and not masked and not item.proposed:
            item.proposed, item.detail = PROPOSED, ", ".join(f"{tag} {scores['general'][tag]:.2f}" for tag in tags)
