"""The page's own scripts, run in node with a stand-in for the document, against the real server; what they did is on the disk."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from prep.review.routes import app
from tests.prep.review.conftest import Page

HERE = Path(__file__).parent
FILES = Path(__file__).parents[3] / "prep/review/page"
NODE = shutil.which("node")


@contextmanager
def served(page: Page) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app(page.desk, "token", port), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}/token/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.skipif(NODE is None, reason="needs node to run the page's scripts, and there is none on the path")
def test_a_person_can_work_on_the_page(page: Page) -> None:
    with served(page) as address:
        done = subprocess.run([NODE or "", HERE / "page.mjs", FILES, address], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = {row["step"]: row["shown"] for row in map(json.loads, done.stdout.splitlines())}
    assert shown["start"] == ["1girl", "red eyes", "hat"] and shown["move"] == ["red eyes", "1girl", "hat"]
    assert shown["add"] == shown["undo"] == ["red eyes", "1girl", "hat", "smile"]
    assert "place" in shown["fault"] or "ends" in shown["fault"]
    assert shown["filter"] == ["b.png"] and shown["batch"] == ["wings"] * 3
    assert shown["overview"] is True and shown["russian"] == "Отменить"
    assert page.text("a") == "red eyes, 1girl, hat, smile, wings\n" and page.text("b") == "A sentence, by hand.\n"
    assert page.text("c") == "1girl, long hair, wings\n"
    assert page.item("a").crop == (6, 6, 15, 12) and page.item("a").dropped == "by_hand" and page.item("b").hand
