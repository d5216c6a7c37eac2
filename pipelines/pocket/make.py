"""Make the pocket models anew: `python -m pipelines.pocket.make`; every stage that is done is skipped.

The times are those that made the committed files, on two CPU cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pipelines.pocket import BASE, TAGGER, base, drawings, tagger, vae

COUNT = 12000  # drawings of the base model's world
MARKED = 5000  # drawings for the tagger, with marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("pocket-work"), help="where drawings and checkpoints are kept")
    parser.add_argument("--vae-minutes", type=float, default=8)
    parser.add_argument("--tagger-minutes", type=float, default=3)
    parser.add_argument("--text-minutes", type=float, default=1.5)
    parser.add_argument("--unet-minutes", type=float, default=45)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    plain = drawings.cached(args.work / "plain.npz", COUNT, 1)
    coder = _stage(args.work / "vae.pt", vae.build(), lambda: vae.train(plain.pixels, args.vae_minutes))
    _tagger_stage(args, coder)
    latents = vae.encode(coder, plain.pixels)
    scaled = latents * float(coder.config.scaling_factor)
    text = base.build_text_encoder()
    if not (args.work / "text.pt").exists():
        base.pretrain_text(text, plain, args.text_minutes)
        torch.save(text.state_dict(), args.work / "text.pt")
    text.load_state_dict(torch.load(args.work / "text.pt"))
    unet, text = base.train(scaled, plain, text, args.unet_minutes, args.work / "unet.pt")
    export_base(coder, unet, text, BASE)


def _stage(path: Path, fresh: torch.nn.Module, train) -> torch.nn.Module:  # type: ignore[no-untyped-def]
    """Train the VAE unless its checkpoint is there; the scaling factor travels with the weights."""
    if not path.exists():
        made = train()
        torch.save({"weights": made.state_dict(), "scaling_factor": made.config.scaling_factor}, path)
    saved = torch.load(path)
    fresh.load_state_dict(saved["weights"])
    fresh.register_to_config(scaling_factor=saved["scaling_factor"])
    return fresh.eval()


def _tagger_stage(args: argparse.Namespace, coder: torch.nn.Module) -> None:
    if (TAGGER / "model.onnx").exists():
        return
    marked = drawings.cached(args.work / "marked.npz", MARKED, 2, marks=True)
    tagger.export(tagger.train(marked, vae.reconstruct(coder, marked.pixels), args.tagger_minutes), TAGGER)


def export_base(coder: torch.nn.Module, unet: torch.nn.Module, text: torch.nn.Module, folder: Path) -> None:
    """Write the diffusers folder in fp16."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    from prep.clip_bpe import write_tokenizer

    write_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    half = [part.to(torch.float16) for part in (coder, text, unet)]
    pipeline = StableDiffusionPipeline(
        *half[:2], tokenizer, half[2], DDIMScheduler(**base.SCHEDULE), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder)
    write_tokenizer(folder / "tokenizer")  # the files that every version of transformers reads
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
