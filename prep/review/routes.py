"""Routes: what the page asks its server, each a function from a request to JSON or a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from prep.captions import join, parse
from prep.clip_bpe import CHUNK, count
from prep.images import PictureError, encode, load
from prep.item import Item
from prep.masks import loss_mask, painted_path
from prep.names import bare, fold
from prep.options import UserError
from prep.review.desk import Desk
from prep.review.evidence import evidence, leaks
from prep.review.library import ConflictError, Row
from prep.review.overview import overview
from prep.review.strings import STRINGS
from prep.web import Guard, assets, guarded

SHOWN = 300  # rows that one answer lists
PLAIN = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}  # what every browser shows
PREVIEWED = 100  # changes that a preview shows
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}  # the address holds the picture's version
NEVER = {"cache-control": "no-store"}

Handler = Callable[[Desk, Request], Response]


def listed(desk: Desk, request: Request) -> Response:
    """List the pictures that pass a filter, sorted: all keys once, and details of those from `start` on."""
    asked = request.query_params
    keys = desk.view(asked.get("filter", ""), asked.get("sort", "name"))
    start, rows = _number(asked.get("start", "0")), desk.library.rows
    found = {
        "total": len(keys),
        "all": len(rows),
        "loading": not desk.library.loaded.is_set(),
        "stamp": desk.stamp,
        "start": start,
        "rows": [brief(rows[key]) for key in keys[start : start + SHOWN]],
        **desk.journal.titles(),
    }
    return JSONResponse(found, headers=NEVER)


def keys(desk: Desk, request: Request) -> Response:
    """List the keys and versions of all pictures that pass a filter, for a selection over more than is loaded."""
    asked = request.query_params
    found = [[key, desk.library.rows[key].version] for key in desk.view(asked.get("filter", ""), asked.get("sort", "name"))]
    start, end = _number(asked.get("from", "0")), _number(asked.get("to", str(len(found))))
    return JSONResponse(found[start:end], headers=NEVER)


def brief(row: Row) -> dict[str, Any]:
    """Return what the gallery shows of a picture."""
    names = ("key", "name", "version", "text", "dropped", "detail", "proposed", "width", "height", "emphasis", "hand", "crop", "masked", "tokens")
    return {name: getattr(row, name) for name in names}


def one(desk: Desk, request: Request) -> Response:
    """Tell all of one picture."""
    key = request.query_params.get("key", "")
    item, state = desk.library.fresh(key)
    row = desk.library.rows[key]
    known = {
        **brief(row),
        **measured(row.text, item, leaks(desk.library.place, item)),
        **evidence(item, desk.library.place, desk.library),
        "keyword": item.keyword,
        "source": item.source.name if item.source else "",
        "retouched": bool(item.retouched),
        "boxes": [[box.label, round(box.score, 3), box.x0, box.y0, box.x1, box.y1] for box in (*item.boxes, *item.marks)],
        "copies": desk.copies(row),
        "kept": state.kept,
    }
    return JSONResponse(known, headers=NEVER)


def measured(text: str, item: Item | None, names: list[str]) -> dict[str, Any]:
    """Count a caption: its tags, the tokens up to the end of each, and which are the keyword or a name that should not be there."""
    tags = parse(text)
    word = fold(item.keyword) if item else ""
    roles = ["keyword" if word and fold(tag) == word else "leak" if any(bare(tag) == bare(name) for name in names) else "" for tag in tags]
    return {"tags": tags, "ends": [count(join(tags[:number])) for number in range(1, len(tags) + 1)], "roles": roles, "chunk": CHUNK}


def weighed(desk: Desk, request: Request, sent: dict[str, Any]) -> Response:
    """Count a caption that is being typed."""
    key, text = sent.get("key"), str(sent.get("text", ""))
    item = desk.library.item(key) if isinstance(key, str) and key else None
    return JSONResponse({"tokens": count(text), **measured(text, item, leaks(desk.library.place, item) if item else [])})


def completed(desk: Desk, request: Request) -> Response:
    """Propose tags for what has been typed."""
    return JSONResponse(desk.completions(request.query_params.get("q", "")), headers=NEVER)


def edited(desk: Desk, request: Request, sent: dict[str, Any]) -> Response:
    """Do an edit on pictures, whose versions come with it; 409 with what is there if they have changed since."""
    versions = _versions(sent)
    after = desk.changed(versions, sent.get("edit"))
    keys = desk.library.edit(str(sent.get("title", ""))[:200], versions, after)
    return JSONResponse({"rows": [brief(desk.library.rows[key]) for key in keys], "stamp": desk.stamp, **desk.journal.titles()})


def previewed(desk: Desk, request: Request, sent: dict[str, Any]) -> Response:
    """Show what an edit would change in captions, and do nothing."""
    versions = _versions(sent)
    found = [(key, desk.library.rows[key].text, state.text or "") for key, state in desk.changed(versions, sent.get("edit"))]
    changes = [{"key": key, "before": before, "after": after} for key, before, after in found if before != after]
    return JSONResponse({"count": len(changes), "of": len(versions), "changes": changes[:PREVIEWED]})


def turned(desk: Desk, request: Request, sent: dict[str, Any]) -> Response:
    """Undo or redo."""
    done = desk.library.turn(sent.get("way") != "redo")
    rows = [brief(desk.library.rows[key]) for key in done.keys]
    return JSONResponse({"title": done.title, "stay": done.stay, "rows": rows, "stamp": desk.stamp, **desk.journal.titles()})


def thumbnail(desk: Desk, request: Request) -> Response:
    return Response(desk.thumbnails.of(request.query_params.get("key", "")), media_type="image/jpeg", headers=FOREVER)


def picture(desk: Desk, request: Request) -> Response:
    """Send a whole picture; `which` is now, clean (before a retouch) or raw. What browsers do not show is sent as PNG."""
    key, which = request.query_params.get("key", ""), request.query_params.get("which", "now")
    path = desk.library.picture(key, raw=which == "raw")
    if which == "clean":
        path = desk.library.item(key).path
    kind = PLAIN.get(path.suffix.lower())
    data = path.read_bytes() if kind and which != "raw" else encode(load(path), ".png")
    return Response(data, media_type=kind if kind and which != "raw" else "image/png", headers=FOREVER)


def masked(desk: Desk, request: Request) -> Response:
    """Send the picture's loss mask, uncropped, as PNG (L); white everywhere if there is none."""
    from dataclasses import replace

    from PIL import Image

    item = desk.library.item(request.query_params.get("key", ""))
    mask = loss_mask(replace(item, crop=None)) or Image.new("L", (item.width or 1, item.height or 1), 255)
    buffer = BytesIO()
    mask.save(buffer, format="PNG")
    return Response(buffer.getvalue(), media_type="image/png", headers=NEVER)


def strokes(desk: Desk, request: Request) -> Response:
    """Send a person's strokes on the mask, PNG as prep.masks.painted_path has them; 204 if there are none."""
    key = request.query_params.get("key", "")
    item = desk.library.item(key)
    path = painted_path(item.key, desk.library.store)
    return Response(path.read_bytes(), media_type="image/png", headers=NEVER) if path.exists() else Response(status_code=204, headers=NEVER)


def summed(desk: Desk, request: Request) -> Response:
    return JSONResponse(overview(desk.library), headers=NEVER)


def strings(desk: Desk, request: Request) -> Response:
    return JSONResponse({"strings": STRINGS, "language": desk.language})


GETS: dict[str, Handler] = {
    "/api/list": listed,
    "/api/keys": keys,
    "/api/item": one,
    "/api/complete": completed,
    "/api/overview": summed,
    "/api/strings": strings,
    "/thumb": thumbnail,
    "/picture": picture,
    "/mask": masked,
    "/strokes": strokes,
}
POSTS: dict[str, Callable[[Desk, Request, dict[str, Any]], Response]] = {
    "/api/edit": edited,
    "/api/preview": previewed,
    "/api/turn": turned,
    "/api/tokens": weighed,
}


def app(desk: Desk, token: str, port: int) -> Guard:
    """Make the app of a desk."""
    routes = [Route(path, _get(desk, handler)) for path, handler in GETS.items()]
    routes += [Route(path, _post(desk, handler), methods=["POST"]) for path, handler in POSTS.items()]
    return guarded([*routes, *assets("prep.review", "page")], token, port, {ConflictError: _conflict(desk), PictureError: _unseen, OSError: _unseen})


def _get(desk: Desk, handler: Handler) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:  # not async: it runs in a thread, and the disk blocks nobody else
        return handler(desk, request)

    return answer


def _post(desk: Desk, handler: Callable[[Desk, Request, dict[str, Any]], Response]) -> Callable[[Request], Any]:
    from starlette.concurrency import run_in_threadpool

    async def answer(request: Request) -> Response:
        try:
            sent = json.loads(await request.body())
        except ValueError:
            sent = None
        if not isinstance(sent, dict):
            raise UserError("the request is no JSON object; load the page again")
        return await run_in_threadpool(handler, desk, request, sent)

    return answer


def _conflict(desk: Desk) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, error: Exception) -> Response:
        keys = error.keys if isinstance(error, ConflictError) else []
        return JSONResponse({"error": str(error), "rows": [brief(desk.library.rows[key]) for key in keys]}, 409)

    return answer


def _unseen(_: Request, error: Exception) -> Response:
    """Say that a picture, or a file that an edit writes, cannot be used; a path would tell of the machine, its name does not."""
    told = f"{Path(str(error.filename)).name}: {error.strerror}; nothing was changed" if isinstance(error, OSError) and error.filename else str(error)
    return JSONResponse({"error": told}, 404 if isinstance(error, PictureError | FileNotFoundError) else 500)


def _versions(sent: dict[str, Any]) -> dict[str, str]:
    found = sent.get("versions")
    if not isinstance(found, dict) or not found or not all(isinstance(version, str) for version in found.values()):
        raise UserError("the edit names no pictures; select some")
    return found


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
