"""Do matched class pictures keep the class from turning into the concept? The demo's three numbers with them, and with none.

usage: python benchmarks/matched.py FOLDER [--only prepare|none|matched]

The demo's project is prepared in FOLDER up to its tree. A LoRA is trained on the tree without its class pictures, and one on the whole
tree, both for as many passes; judged are the shares of pictures that show the marks (pipelines.judge). What is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path


def prepare(root: Path) -> None:
    """Draw the dirty pictures and run `prep run` on them."""
    from pipelines.demo import start_project
    from pipelines.dirt import write_raw

    write_raw(root / "raw")
    start_project(root)
    subprocess.run([sys.executable, "-m", "prep", "run", str(root)], check=True, capture_output=True)


def trained(root: Path, kind: str) -> dict[str, object]:
    """Train on the tree, with its class pictures or without, and return what the LoRA does."""
    from pipelines.judge import judge

    folder = root / kind
    if not list(folder.glob("lora/*.safetensors")):
        folder.mkdir(exist_ok=True)
        shutil.copyfile(root / "dataset.toml", folder / "dataset.toml")
        shutil.copytree(root / "tree", folder / "tree", dirs_exist_ok=True)
        if kind == "none":
            shutil.rmtree(folder / "tree" / "reg", ignore_errors=True)
        subprocess.run([sys.executable, "-m", "train", "run", str(folder)], check=True, capture_output=True)
    (lora,) = folder.glob("lora/mira.safetensors")
    return asdict(judge(lora, "mira"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("prepare", "none", "matched"))
    args = parser.parse_args()
    if not (args.folder / "tree").exists():
        prepare(args.folder)
    kinds = [args.only] if args.only else ["none", "matched"]
    for kind in kinds if args.only != "prepare" else []:
        started = time.perf_counter()
        print(json.dumps({kind: trained(args.folder, kind), "s": round(time.perf_counter() - started)}, indent=1))


if __name__ == "__main__":
    main()
