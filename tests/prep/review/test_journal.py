"""A kill at any moment: what the page was told is done stays done, and what was begun is finished by the next server."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from prep.review import library
from prep.review.journal import MOST
from prep.review.snapshot import Snapshot
from prep.review.snapshot import write as really_write
from tests.prep.review.conftest import Page


class KilledError(Exception):
    pass


# Edits until it is killed, and says of each when it is done; what it was told is the last line that came whole.
EDITING = """
import sys
from contextlib import ExitStack
from pathlib import Path
from tests.prep.review.conftest import Page
with ExitStack() as stack:
    page = Page(Path(sys.argv[1]), stack)
    for number in range(10_000):
        assert page.edit("ab", "caption", text=f"edit {number}").status_code == 200
        print(number, flush=True)
"""


def test_a_kill_loses_no_edit_that_was_acknowledged(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, "-c", EDITING, str(folder)], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        told = [process.stdout.readline() for _ in range(7)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    last = int([line for line in told if line.endswith("\n")][-1])
    with ExitStack() as stack:
        page = Page(folder, stack)
        found = page.text("a")
        assert found in (f"edit {last}\n", f"edit {last + 1}\n") and page.text("b") == found and page.item("a").hand
        number = int((found or "").split()[1])
        for earlier in range(number - 1, -1, -1):
            page.post("api/turn", way="undo")
            assert page.text("a") == page.text("b") == f"edit {earlier}\n"
        page.post("api/turn", way="undo")
        assert page.text("a") == "1girl, red eyes, hat\n" and page.post("api/turn", way="undo").status_code == 400


@pytest.mark.parametrize("way", ["edit", "undo"])
def test_an_edit_or_undo_that_was_cut_off_is_finished_by_the_next_server(page: Page, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    page.edit("ab", "add", tags="smile")

    def first_only(changes: list[tuple[object, Snapshot, Snapshot]], store: object) -> None:
        really_write(list(changes)[:1], store)  # type: ignore[arg-type]
        raise KilledError

    monkeypatch.setattr(library, "write", first_only)
    with pytest.raises(KilledError):
        page.edit("ab", "add", tags="hat, wings") if way == "edit" else page.post("api/turn", way="undo")
    monkeypatch.undo()
    wanted = {
        "edit": ("1girl, red eyes, hat, smile, wings", "1girl, long hair, red eyes, smile, hat, wings"),
        "undo": ("1girl, red eyes, hat", "1girl, long hair, red eyes"),
    }
    with ExitStack() as stack:
        again = Page(page.folder, stack)
        assert tuple((again.text(key) or "").strip() for key in "ab") == wanted[way]
        assert again.post("api/turn", way="undo" if way == "edit" else "redo").status_code == 200
        assert again.text("a") == "1girl, red eyes, hat, smile\n"


def test_what_was_written_after_a_kill_stays(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(changes: object, store: object) -> None:
        raise KilledError

    monkeypatch.setattr(library, "write", nothing)
    with pytest.raises(KilledError):
        page.edit("ab", "caption", text="never acknowledged")
    monkeypatch.undo()
    (page.folder / "a.txt").write_text("by vim since\n", encoding="utf-8")
    with ExitStack() as stack:
        again = Page(page.folder, stack)
        assert again.text("a") == "by vim since\n" and again.text("b") == "never acknowledged\n"


def test_an_edit_for_which_there_is_no_room_is_taken_back_and_told(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(changes: list[tuple[object, Snapshot, Snapshot]], store: object) -> None:
        calls.append(changes)
        really_write(list(changes)[:1], store)  # type: ignore[arg-type]
        if len(calls) == 1:
            raise OSError(28, "No space left on device", str(page.folder / "b.txt"))

    page.edit("b", "add", tags="smile")
    monkeypatch.setattr(library, "write", full)
    answer = page.edit("ab", "caption", text="too much")
    assert answer.status_code == 500 and "b.txt: No space left" in answer.json()["error"] and str(page.folder) not in answer.text
    assert page.text("a") == "1girl, red eyes, hat\n" and page.text("b") == "1girl, long hair, red eyes, smile\n"
    assert not page.item("a").hand and page.get("api/list")["undo"] == "add"


def test_a_new_edit_forgets_what_was_undone(page: Page) -> None:
    page.edit("a", "caption", text="one")
    page.post("api/turn", way="undo")
    page.edit("a", "caption", text="two")
    assert page.post("api/turn", way="redo").status_code == 400 and page.get("api/list")["redo"] == ""
    assert page.get("api/list")["undo"] == "caption" and MOST > 100
