"""`train watch`: a run's curves, samples and settings on a live page, running or finished, with a button that ends it after its epoch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prep.options import UserError, atomic_write, read_settings
from prep.web import PACKAGES, Guard, assets, guarded, serve
from train import curves, report_page
from train.control import WORDS
from train.report import gather, plain, read_log
from train.report_words import SAYS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from train.config import TrainConfig

NEVER = {"cache-control": "no-store"}
# What the page says beside the report's own words, in English and Russian.
STRINGS = {
    "stop": ("Stop after this epoch", "Остановить после этой эпохи"),
    "save": ("Keep the LoRA as it is now", "Сохранить LoRA как есть"),
    "none": ("Take the request back", "Отменить просьбу"),
    "asked.stop": ("The run will end with this epoch.", "Обучение закончится вместе с этой эпохой."),
    "asked.save": ("The run will keep the LoRA after its next step.", "LoRA будет сохранена после следующего шага."),
    "curves": ("Curves", "Кривые"),
    "samples": ("Sample pictures", "Пробные картинки"),
    "step": ("step {step}", "шаг {step}"),
    "settings": ("Settings", "Настройки"),
    "waiting": ("Waiting for the first step …", "Жду первого шага …"),
    "gone": ("The server does not answer; start `train watch` again.", "Сервер не отвечает; запустите `train watch` снова."),
}


@dataclass(frozen=True)
class Watch:
    """A run as the page sees it: its files beside OUTPUT/NAME, read anew each time they have changed."""

    config: TrainConfig

    @property
    def log(self) -> Path:
        return self.config.output.file(".jsonl")

    @property
    def control(self) -> Path:
        return self.config.output.file(".control")

    def stamp(self) -> str:
        """Name the state of the run's files: another one means that there is something new."""
        found = sorted(self.config.output.output_dir.glob(f"{self.config.output.output_name}*"))
        newest = [path.stat() for path in found if path.exists()]
        return f"{len(found)}-{sum(stat.st_size for stat in newest)}-{max((stat.st_mtime_ns for stat in newest), default=0)}"

    def shown(self, language: str = "en") -> dict[str, Any]:
        """Return the parts of the page, HTML in which all that comes from files is escaped."""
        say = SAYS[language]
        records = read_log(self.log)
        report = plain(gather(self.config.output, records, {"settings_now": self.config.flat()}, self.config.data.tree))
        return {
            "name": report["name"],
            "running": report["state"] == "running",
            "head": report_page.verdict(report, say) + report_page.figures(report, say),
            "curves": "".join(curves.draw(chart, say) for chart in report_page.charts(report, say)),
            "settings": report_page.settings(report["settings"], report["changed"], say),
            "samples": report["samples"],
        }

    def sample(self, name: str) -> Path:
        """Return the file of a sample sheet of this run; raises UserError for any other name."""
        records = read_log(self.log)
        names = [sheet["file"] for sheet in plain(gather(self.config.output, records, {}, self.config.data.tree))["samples"]]
        if name not in names:
            raise UserError(f"there is no sample sheet {name}; load the page again")
        return self.config.output.output_dir / name

    def ask(self, word: str) -> None:
        """Ask the run as `train control` does; raises UserError for a word it does not know."""
        if word not in WORDS:
            raise UserError(f"{word!r} is nothing a run can be asked; the words are {', '.join(WORDS)}")
        if not self.log.exists():
            raise UserError(f"no run has been started in {self.config.output.output_dir}; `train run` starts one")
        atomic_write(self.control, word + "\n")

    def asked(self) -> str:
        """Return what the run has been asked and has not answered yet, "" for nothing."""
        try:
            word = self.control.read_text(encoding="utf-8").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""
        return word if word in WORDS and word != "none" else ""


def app(watch: Watch, token: str, port: int) -> Guard:
    """Make the app of a run."""
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import Route

    def state(request: Request) -> Response:
        language = "ru" if request.query_params.get("language") == "ru" else "en"
        stamp = f"{watch.stamp()}-{language}"
        found: dict[str, Any] = {"stamp": stamp, "asked": watch.asked()}
        if request.query_params.get("stamp") != stamp and watch.log.exists() and watch.log.stat().st_size:
            found |= watch.shown(language)
        return JSONResponse(found, headers=NEVER)

    def ask(request: Request) -> Response:
        watch.ask(request.query_params.get("word", ""))
        return JSONResponse({"asked": watch.asked()})

    def sample(request: Request) -> Response:
        return FileResponse(watch.sample(request.query_params.get("file", "")), headers=NEVER)

    def style(request: Request) -> Response:
        return Response(report_page.FRAME + curves.STYLE + report_page.STYLE, media_type="text/css")

    handlers: Mapping[str, Callable[[Request], Response]] = {"/api/state": state, "/sample": sample, "/report.css": style, "/api/strings": _strings}
    routes = [Route(path, handler) for path, handler in handlers.items()]
    return guarded([*routes, Route("/api/ask", ask, methods=["POST"]), *assets("train", "watch_page")], token, port)


def _strings(request: Request) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({key: {"en": english, "ru": russian} for key, (english, russian) in STRINGS.items()})


def _watch(root: Path, port: int, browser: bool) -> None:
    from train.config import TrainConfig

    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise UserError(f"`train watch` shows a page, {PACKAGES}")
    watch = Watch(TrainConfig.load(read_settings(root), {}).at(root))

    def make(token: str, port: int) -> Guard:
        return app(watch, token, port)

    serve(make, port, browser)


watch_command = click.Command(
    "watch",
    params=[
        click.Argument(["root"], default=".", type=click.Path(path_type=Path)),
        click.Option(["--port"], type=click.IntRange(0, 65535), default=0, show_default=True, help="Port of the page; 0: a free one."),
        click.Option(["--browser/--no-browser"], default=True, show_default=True, help="Open the browser."),
    ],
    callback=_watch,
    help="Watch the run of the project in ROOT (default: here) in the browser, running or finished; served to this machine alone.",
)
