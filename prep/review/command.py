"""`prep review`: the page itself."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prep.images import has_pictures
from prep.options import UserError, option
from prep.project import Command, Place
from prep.store import Store
from prep.web import PACKAGES, serve

if TYPE_CHECKING:
    from prep.web import Guard

LANGUAGES = ("auto", "en", "ru")
SWITCH = 0.0005  # seconds that a request waits for the thread that reads the pictures; Python's own 0.005, many times a page, make it late


@dataclass(frozen=True)
class Review(Command):
    """Look at pictures and captions in the browser and correct them; every edit is on the disk before it is shown as done.

    What is edited is what the commands read: a caption typed here is a person's, a crop stays, a picture set aside or brought back
    remains so. The page is served to this machine alone.
    """

    port: int = option(0, help="Port of the page; 0: a free one.", min=0, max=65535, matters=False)
    browser: bool = option(True, help="Open the browser.", matters=False)
    language: str = option("auto", help="Language of the page; auto: the browser's.", choices=LANGUAGES, matters=False)

    def ready(self, place: Place) -> None:
        if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
            raise UserError(f"`prep review` shows a page, {PACKAGES}")
        if not has_pictures(place.work):
            hint = "; `prep clean` fills it from the raw pictures" if place.is_project else ""
            raise UserError(f"there are no pictures in {place.work}{hint}")

    def main(self, place: Place) -> None:
        self.ready(place)
        from prep.review.desk import Desk
        from prep.review.journal import Journal
        from prep.review.routes import app

        sys.setswitchinterval(SWITCH)
        with ExitStack() as stack:
            desk = Desk(place, Journal(Store(place.work).hidden, stack), self.language)
            desk.start()

            def make(token: str, port: int) -> Guard:
                return app(desk, token, port)

            serve(make, self.port, self.browser)
