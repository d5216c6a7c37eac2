"""How long until a run can take its first step, against reading the checkpoint and importing torch, which nothing can do without?

usage: python -m benchmarks.start FILE [--runs 3]

FILE is a single-file checkpoint. A project with one picture is trained for a step once, so that its picture is encoded; then `train run` is
started anew and stopped where it says its learning rates, which is just before the first step. In turns with it a process of its own reads
the file from end to end and imports torch. All of it lies in the system's cache; said are the medians of processor time and of the wall.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READ = "import sys, torch\nwith open(sys.argv[1], 'rb', buffering=0) as file:\n    while file.read(1 << 24): pass"
# The time until the first step is asked for, in a process that ends there.
START = """
import sys, time, train.run
from train.cli import main

def stop(*_): raise SystemExit(0)

if sys.argv.pop(1) == "stop": train.run.train = stop
main(["run", *sys.argv[1:]])
"""


def project(root: Path, base: Path) -> None:
    """Write a project of one picture."""
    from PIL import Image

    folder = root / "tree" / "img" / "1_tok"
    folder.mkdir(parents=True)
    Image.radial_gradient("L").convert("RGB").save(folder / "0.png")
    (folder / "0.txt").write_text("tok, a ring\n", encoding="utf-8")
    settings = ["resolution = 256", "max_train_steps = 1", "sample_steps = 0", "report_pictures = false", 'optimizer = "sgdnesterov"']
    text = "\n".join([f'[project]\nbase = {json.dumps(str(base))}\nkeyword = "tok"\n[train]', *settings])
    (root / "dataset.toml").write_text(text + "\n", encoding="utf-8")


def seconds(*command: str) -> tuple[float, float]:
    """Return the seconds that pass and those of the processor until a Python process has ended."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", *command], check=True, capture_output=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        project(root, args.file.resolve())
        seconds(START, "stop", str(root))  # encodes the picture, and warms the system's cache
        pairs = [(seconds(START, "stop", str(root)), seconds(READ, str(args.file))) for _ in range(args.runs)]
    figures: dict[str, float] = {}
    for place, kind in enumerate(("of the wall", "of the processor")):
        figures[f"until the first step, s {kind}"] = round(statistics.median(own[place] for own, _ in pairs), 2)
        figures[f"reading and importing torch, s {kind}"] = round(statistics.median(bare[place] for _, bare in pairs), 2)
        figures[f"ratio {kind}"] = round(statistics.median(own[place] / bare[place] for own, bare in pairs), 2)
    print(json.dumps({**figures, "load of the machine": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
