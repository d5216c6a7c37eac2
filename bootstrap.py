"""Set up LoRA Atelier in .venv and run it: `python bootstrap.py demo`, `python bootstrap.py test`.

Standard library only. The virtual environment is made if missing; packages are installed only when pyproject.toml, constraints.txt or the
Python version changed since the last time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="draw dirty pictures, run the whole chain on them, train a LoRA, show before and after")
    demo.add_argument("--out", default="demo", help="folder of the demo (default: demo)")
    test = commands.add_parser("test", help="run the tests; further arguments go to pytest")
    test.add_argument("--slow", action="store_true", help="the slow tests too")
    commands.add_parser("install", help="only make .venv and install")
    args, rest = parser.parse_known_args()
    if rest and args.command != "test":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if sys.version_info < (3, 11):  # noqa: UP036  (whoever runs this may have an older one)
        parser.error(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    try:
        install(extra="test" if args.command == "test" else "")
        return run(args, rest)
    except subprocess.CalledProcessError as error:
        print(f"bootstrap: `{' '.join(map(str, error.cmd[:6]))} …` failed with exit code {error.returncode}; see above", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Run the demo or the tests with the environment's Python and return its exit code."""
    if args.command == "demo":
        return subprocess.call([PYTHON, "-m", "prep", "demo", args.out])
    if args.command == "test":
        marks = ["-m", "slow or not slow"] if args.slow else []
        # A file's tests stay in one process, and the whole runs, which take longest and come first by name, start first.
        spread = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadscope", "--no-loadscope-reorder"]
        return subprocess.call([PYTHON, "-m", "pytest", *spread, *marks, *rest], cwd=HERE)
    return 0


def install(extra: str) -> None:
    """Bring .venv up to date, or find that it is."""
    if not PYTHON.exists():
        print(f"bootstrap: making {VENV}", flush=True)
        venv.create(VENV, with_pip=True)
    stamp, wanted = VENV / "lora-atelier.stamp", fingerprint(extra)
    done = stamp.read_text(encoding="utf-8").split() if stamp.exists() else []
    if wanted in done:
        return
    print("bootstrap: installing (once; it takes a few minutes)", flush=True)
    target = f"{HERE}[{extra}]" if extra else str(HERE)
    subprocess.check_call([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins(), "--editable", target])
    # An installation with the test packages serves the demo too.
    stamp.write_text("\n".join({wanted, fingerprint("")}), encoding="utf-8", newline="\n")


def pins() -> list[str]:
    """Return pip's arguments for the tested versions."""
    return ["--constraint", str(HERE / "constraints.txt")]


def fingerprint(extra: str) -> str:
    """Hash all that decides what is to be installed."""
    parts = [
        (HERE / "pyproject.toml").read_bytes(),
        (HERE / "constraints.txt").read_bytes(),
        sys.version.encode(),
        str(HERE).encode(),
        extra.encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
