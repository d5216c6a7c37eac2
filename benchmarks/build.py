"""How long does `prep build` take over a large project, and is what it saves worth it? Against copying every file with a sum.

usage: python benchmarks/build.py [--pictures 20000] [--side 128]

A project of noisy PNGs with sidecars and captions of 25 tags is built with hard links, again without a change, and again after one
caption was edited and one picture replaced. The alternative copies pictures and captions one by one and takes the sha256 of each.
The build is killed at --kills moments; the tree that is found, without any help, must be the old one or the new one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = '[project]\nkeyword = "mira"\nclass = "1girl"\n[build]\nrepeats = 1\nlink = true\n'
WORDS = [f"tag {number}" for number in range(400)]


def make_project(root: Path, count: int, side: int) -> None:
    """Write a project as `prep clean`, `tag`, `caption` and `keyword` leave it."""
    import numpy as np
    from PIL import Image

    from prep.item import Item
    from prep.store import STORE, Store

    root.mkdir()
    (root / "dataset.toml").write_text(SETTINGS, encoding="utf-8")
    store, rng = Store(root / "work"), random.Random(0)
    (store.folder / STORE / "items").mkdir(parents=True)
    template = ""
    for number in range(count):
        key = f"{number:06d}"
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(store.folder / f"{key}.png", compress_level=0)
        caption = ", ".join(["mira", "1girl", *rng.sample(WORDS, 25)])
        (store.folder / f"{key}.txt").write_text(caption + "\n", encoding="utf-8")
        if not template:  # saving with care takes an fsync for each
            raw = root / "raw" / f"{key}.jpg"
            facts = {"source_sha256": "5" * 64, "digest": "6" * 64, "width": side, "height": side}
            store.save(Item(key, store.folder / f"{key}.png", raw, measures={"blur": 0.4, "side": 512.0}, **facts))
            template = (store.hidden / "items" / f"{key}.json").read_text(encoding="utf-8").replace(key, "KEY")
        (store.hidden / "items" / f"{key}.json").write_text(template.replace("KEY", key), encoding="utf-8")


def build(root: Path) -> tuple[float, float]:
    """Build and return the seconds that passed and those that the processor worked, which on a busy machine tell more."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", "prep", "build", str(root)], check=True, capture_output=True)
    after = os.times()
    worked = after.children_user - before.children_user + after.children_system - before.children_system
    return round(time.perf_counter() - started, 2), round(worked, 2)


def copy_all(root: Path) -> float:
    """Do what a script would: copy pictures and captions, and note the sum of each."""
    started, target = time.perf_counter(), root / "bare"
    target.mkdir()
    for path in sorted((root / "work").iterdir()):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
            hashlib.sha256((target / path.name).read_bytes()).hexdigest()
    shutil.rmtree(target)
    return round(time.perf_counter() - started, 2)


def state(tree: Path) -> str:
    """Return a digest of names and captions of a tree as a trainer would find it."""
    names = sorted(tree.rglob("*"))
    texts = [path.read_bytes() if path.suffix == ".txt" else b"" for path in names]
    return hashlib.sha256(b"\0".join(str(path).encode() + text for path, text in zip(names, texts, strict=True))).hexdigest()


def kill(root: Path, kills: int, span: float) -> list[str]:
    """Kill builds at moments spread over `span` seconds, each after an edit; say for each which tree is there: old, new or neither."""
    found = []
    for number in range(kills):
        before = state(root / "tree")
        (root / "work" / "000007.txt").write_text(f"mira, kill {number}\n", encoding="utf-8")
        process = subprocess.Popen([sys.executable, "-m", "prep", "build", str(root)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.25 * span * (number + 1) / kills)
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = (root / "tree").is_dir()
        now = state(root / "tree") if there else "nothing"
        build(root)
        found.append("old" if now == before else "new" if now == state(root / "tree") else "neither")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--kills", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "project"
        make_project(root, args.pictures, args.side)
        figures: dict[str, object] = {"copying all, s": copy_all(root), "first build, s": build(root), "no change, s": build(root)}
        (root / "work" / "000003.txt").write_text("mira, new words\n", encoding="utf-8")
        shutil.copyfile(root / "work" / "000004.png", root / "work" / "new.png")
        (root / "work" / "new.png").replace(root / "work" / "000005.png")
        figures["one caption and one picture changed, s"] = one = build(root)
        figures["killed"] = kill(root, args.kills, one[0])
        figures["load of the machine"] = os.getloadavg()[0]
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
