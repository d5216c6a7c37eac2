"""What does compiling the blocks bring, and what does it cost?

usage: python -m benchmarks.compiled BASE [--side 256] [--batch 1] [--steps 5] [--rank 16] [--precision no] [--mode default]

BASE is a diffusers folder of Stable Diffusion 1.x, such as one of random weights. Steps with and without compiled blocks take turns on the same
batch in one process. Printed are the seconds until all blocks are compiled and the first step is taken, and medians and minima of both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.train_step import compared, job_of, make_tree, measure


def main() -> None:
    from train.compiled import regions_of
    from train.run import take_step

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    parser.add_argument("--mode", default="default", help="of torch.compile")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_tree(Path(name), args.side, args.batch)
        job, state, batch = job_of(args, Path(name), args.precision)
        regions = regions_of(job, state)

        def plain() -> None:
            for block in regions.twins:
                block.compiled = None
            take_step([batch], job, state)

        def ours() -> None:
            for block, region in calls.items():
                block.compiled = region
            take_step([batch], job, state)

        plain()
        regions.use(args.mode)
        state.regions, calls = regions, {block: block.compiled for block in regions.twins}
        began = time.perf_counter()
        ours()
        built = time.perf_counter() - began
        found = measure({"ours": ours, "plain": plain}, args.steps)
    shape = {"precision": args.precision, "side": args.side, "batch": args.batch, "threads": torch.get_num_threads(), "mode": args.mode}
    blocks = {"blocks": len(regions.twins), "seconds until built": round(built, 1)}
    print(json.dumps({**shape, **blocks, "passed": compared(found, 0), "worked": compared(found, 1)}, indent=1))


if __name__ == "__main__":
    main()
