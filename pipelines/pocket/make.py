"""Make the pocket models anew: `python -m pipelines.pocket.make`; every stage that is done is skipped.

The stages are draw, vae, decoder, tagger, text, unet, export and measure. The times are those that made the committed files, on two CPU cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.pocket import BASE, TAGGER, base, drawings, measure, tagger, vae
from pipelines.pocket.export import export_base

COUNT = 12000  # drawings of the base model's world
MARKED = 5000  # drawings with marks, which the tagger sees too
DECODED = 3000  # of the marked ones, which the tagger also sees as the autoencoder gives them back


def main() -> None:
    """Run the stages that are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("pocket-work"), help="where drawings and checkpoints are kept")
    parser.add_argument("--vae-minutes", type=float, default=6)
    parser.add_argument("--decoder-minutes", type=float, default=4)
    parser.add_argument("--tagger-minutes", type=float, default=4.5)
    parser.add_argument("--text-minutes", type=float, default=2)
    parser.add_argument("--unet-minutes", type=float, default=36)
    parser.add_argument("--export", action="store_true", help="train nothing: export and measure the newest checkpoint, also in mid-training")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.export:
        train(args)
    newest = max((args.work / name for name in ("unet.pt", "unet-part.pt")), key=lambda path: path.stat().st_mtime if path.exists() else 0)
    unet, text = base.build_unet(), base.build_text_encoder()
    torch.nn.ModuleList([unet, text]).load_state_dict(torch.load(newest))
    export_base(_load_vae(args.work / "vae-sharp.pt"), unet, text, BASE)
    measure.main()


def train(args: argparse.Namespace) -> None:
    """Draw and train, each stage into a file of its own in the work folder."""
    work: Path = args.work
    plain = drawings.cached(work / "plain.npz", COUNT, 1)
    _stage(work / "vae.pt", lambda: _with_scale(vae.train(plain.pixels, args.vae_minutes)))
    coder = _load_vae(work / "vae.pt")
    _stage(work / "vae-sharp.pt", lambda: _with_scale(vae.sharpen(_load_vae(work / "vae.pt"), plain.pixels, args.decoder_minutes)))
    if not (TAGGER / "model.onnx").exists():
        marked = drawings.cached(work / "marked.npz", MARKED, 2, marks=True)
        both = drawings.Drawings(np.concatenate([marked.pixels, plain.pixels]), marked.tags + plain.tags)
        decoded = vae.reconstruct(_load_vae(work / "vae-sharp.pt"), marked.pixels[:DECODED])
        tagger.export(tagger.train(both, decoded, args.tagger_minutes), TAGGER)
    text = base.build_text_encoder()
    _stage(work / "text.pt", lambda: base.pretrain_text(text, plain, args.text_minutes))
    text.load_state_dict(torch.load(work / "text.pt"))
    if not (work / "unet.pt").exists():
        _stage(work / "latents.pt", lambda: vae.encode(coder, plain.pixels) * float(coder.config.scaling_factor))
        base.train(torch.load(work / "latents.pt"), plain, text, args.unet_minutes, work / "unet-part.pt")
        (work / "unet-part.pt").replace(work / "unet.pt")


def _stage(path: Path, make: Callable[[], Any]) -> None:
    """Make what belongs into `path` and keep it, unless it is there."""
    if not path.exists():
        torch.save(make(), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)


def _with_scale(coder: Any) -> dict[str, Any]:
    """Pack weights and scaling factor: that is configuration, and would be lost."""
    return {"weights": coder.state_dict(), "scaling_factor": coder.config.scaling_factor}


def _load_vae(path: Path) -> Any:
    coder, saved = vae.build(), torch.load(path)
    coder.load_state_dict(saved["weights"])
    coder.register_to_config(scaling_factor=saved["scaling_factor"])
    return coder.eval()


if __name__ == "__main__":
    main()
