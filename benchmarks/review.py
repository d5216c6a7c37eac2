"""How long does `prep review` take on a large folder, and how much memory? Asked: first screen 1.5 s with thumbnails there, filter 200 ms, 400 MB.

usage: python benchmarks/review.py [--pictures 20000] [--folder FOLDER]

The folder is made of generated pictures with captions, scores and thumbnails; one that is there already is used again. The server is a
process of its own; the first screen is the page, its scripts, the first rows and 30 thumbnails, from the start of the process on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

SCREEN = 30  # thumbnails of the first screen
FILTERS = ("tag_7 AND NOT tag_12", "tokens>75", "set aside", "duplicate of", "score(tag_3)<0.5", "tag_1* OR (by hand AND kept)")
TIMES = 5
WORDS = 400


def make(folder: Path, count: int) -> None:
    """Write `count` pictures of 32 x 48 pixels, 20 tags each, with sidecars, scores and thumbnails."""
    import numpy as np
    from PIL import Image

    from prep.images import pixel_hash
    from prep.item import Item
    from prep.scores import Labels, ScoreStore
    from prep.store import Store

    dice, store = random.Random(1), Store(folder)
    tags = [f"tag_{number}" for number in range(WORDS)]
    labels = Labels(("safe", *tags), ("rating", *["general"] * WORDS))
    thumbs = store.hidden / "thumbs"
    thumbs.mkdir(parents=True)
    with ScoreStore.open(store.hidden) as scores:
        model, rows = scores.register("planted", "w", 1, labels), {}
        for number in range(count):
            path = folder / f"p{number:05}.png"
            image = Image.new("RGB", (32, 48), (number % 251, number // 251, 90))
            image.save(path)
            image.resize((170, 256)).save(thumbs / f"{path.stem}.jpg", quality=80)
            chosen = dice.sample(range(WORDS), 20)
            text = ", ".join(tags[index].replace("_", " ") for index in chosen)
            values = np.zeros(WORDS + 1, np.float32)
            values[[index + 1 for index in chosen]] = [dice.random() for _ in chosen]
            aside = ("duplicate", "of p00001") if number % 50 == 2 else ("", "")
            item = Item(path.stem, path, digest=pixel_hash(image), width=32, height=48, written=text, caption=text, dropped=aside[0], detail=aside[1])
            rows[item.digest] = values
            path.with_suffix(".txt").write_text(text + "\n")
            store.save(item)
        scores.put(model, rows)


class Server:
    """`prep review` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.start = time.perf_counter()
        command = [sys.executable, "-m", "prep", "review", str(folder), "--no-browser"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        self.url = self.process.stderr.readline().strip()

    def ask(self, path: str, **query: Any) -> bytes:
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}") as answer:
            return bytes(answer.read())

    def screen(self) -> float:
        """Ask for what the first screen needs, and return the seconds since the process was started."""
        page = self.ask("").decode()
        for name in re.findall(r'(?:src|href)="([\w.]+)"', page):
            self.ask(name)
        rows = self.list("")["rows"]
        while len(rows) < SCREEN:
            rows = self.list("")["rows"]
        for row in rows[:SCREEN]:
            self.ask("thumb", key=row["key"])
        return time.perf_counter() - self.start

    def list(self, text: str) -> Any:
        return json.loads(self.ask("api/list", filter=text, sort="name", start=0))

    def settle(self) -> float:
        """Wait until all is read and counted, and return the seconds since the start."""
        while self.list("")["loading"]:
            time.sleep(0.05)
        read = time.perf_counter() - self.start
        time.sleep(0.2)
        self.list("tokens>0")
        while True:
            try:
                self.list("score(tag_1)>0")
                return read
            except urllib.error.HTTPError:
                time.sleep(0.1)

    def work(self) -> float:
        """Return the processor time that the process has taken, in seconds: what a busy machine does not stretch."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Return the most memory that the process has held, in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="review-"))
    if not (folder / "p00000.png").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, args.pictures)
    server = Server(folder)
    try:
        seconds = server.screen()
        print(f"first screen {seconds:.2f} s (asked 1.5), {server.work():.2f} s of a processor, {os.getloadavg()[0]:.1f} others waiting")
        print(f"all of {args.pictures:,} pictures read after {server.settle():.1f} s")
        for number, text in enumerate(FILTERS):
            print(f"filter {text!r}: {_times(server, text, number)}")
        server.ask("api/overview")
        print(f"memory of the server at most {server.memory():.0f} MB (asked 400)")
    finally:
        server.process.terminate()
        server.process.wait()


def _times(server: Server, text: str, number: int) -> str:
    """Ask for a filter several times, each time spelled otherwise, so that no answer is one that was kept."""
    taken = []
    for time_ in range(TIMES):
        start = time.perf_counter()
        found = server.list(f"{text} AND NOT never_{number}_{time_}")["total"]
        taken.append((time.perf_counter() - start) * 1000)
    return f"{found} pictures, first {taken[0]:.0f} ms, middle {statistics.median(taken):.0f} ms (asked 200)"


if __name__ == "__main__":
    main()
