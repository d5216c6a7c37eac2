"""Web: a page for one person on this machine. Bound to loopback, behind a token in the URL; nothing is served by a path of the disk."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import click

from prep.options import UserError

if TYPE_CHECKING:
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
MOST = 32 * 2**20  # bytes of a request; a painted mask of the largest picture takes less
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# What a page may do: run what ships with it, show its own pictures and those it has drawn, ask its own server; nothing else.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
PACKAGES = "it needs two more packages; run `pip install 'lora-atelier[review]'`"


class Guard:
    """Let through what comes from this server's own page, whose addresses all begin with the token; the rest gets 403 and no more."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            fault = self._fault(scope)
            token, rest = _split(scope["path"])
            if not fault and not secrets.compare_digest(token.encode(), self.token.encode()):
                fault = 403, "wrong or missing token; open the address that the command printed"
            answer = PlainTextResponse(fault[1], fault[0]) if fault else self.app
            await answer({**scope, "path": rest, "raw_path": rest.encode("utf-8", "replace"), "root_path": ""}, receive, _armoured(send))

    def _fault(self, scope: Scope) -> tuple[int, str] | None:
        """Say what is wrong with where a request comes from or with its size."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self.hosts:
            return 403, "another host"
        if (origin is not None and origin != f"http://{host}") or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "another origin"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if origin is None and "sec-fetch-site" not in headers:
            return 403, "no origin"
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "no length"
        return (413, "too large") if int(length) > MOST else None


def _split(path: str) -> tuple[str, str]:
    """Take the token off a path: token, rest."""
    token, _, rest = path.removeprefix("/").partition("/")
    return token, f"/{rest}"


def _armoured(send: Send) -> Send:
    """Add the headers that keep a page to itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


def guarded(routes: Sequence[Route], token: str, port: int, failures: Mapping[Any, Callable[..., Any]] | None = None) -> Guard:
    """Make the app of some routes; a UserError becomes 400 with its sentence as JSON."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse

    def told(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    return Guard(Starlette(routes=list(routes), exception_handlers={UserError: told, **(failures or {})}), token, port)


def assets(package: str, folder: str) -> list[Route]:
    """Return the routes of the files that ship in a package's folder; index.html is the page itself."""
    from starlette.responses import Response
    from starlette.routing import Route

    def route(name: str, data: bytes) -> Route:
        kind = KINDS["." + name.rpartition(".")[2]]
        return Route("/" if name == "index.html" else f"/{name}", lambda _: Response(data, media_type=kind, headers={"cache-control": "no-cache"}))

    found = sorted(resources.files(package).joinpath(folder).iterdir(), key=lambda entry: entry.name)
    return [route(entry.name, entry.read_bytes()) for entry in found if "." + entry.name.rpartition(".")[2] in KINDS]


def serve(make: Callable[[str, int], Guard], port: int = 0, browser: bool = True) -> None:
    """Serve what `make` makes of a new token and the port (0: a free one) until Ctrl-C; raises UserError if that cannot be."""
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise UserError(f"the page cannot be served, {PACKAGES}") from None
    token = secrets.token_urlsafe(24)
    with socket.socket() as listener:
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}); leave --port away, and a free one is taken") from None
        listener.listen()
        port = listener.getsockname()[1]
        url = f"http://{LOOPBACK}:{port}/{token}/"
        server = uvicorn.Server(uvicorn.Config(make(token, port), log_level="error", access_log=False, timeout_graceful_shutdown=2))
        click.echo(f"{url}\nCtrl-C ends it; everything is saved as you go", err=True)
        if browser:
            webbrowser.open(url)
        server.run(sockets=[listener])
