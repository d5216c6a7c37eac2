"""Models that read a picture and write text (BLIP, BLIP-2, Florence-2, Qwen-VL, LLaVA and their like), through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError

if TYPE_CHECKING:
    from PIL import Image

    from prep.captioners import CaptionerRow


class VisionText:
    """One model and its processor; see `prep.captioners.Captioner`."""

    def __init__(self, row: CaptionerRow, device: str = "auto") -> None:
        self.row = row
        self.asked = device

    @cached_property
    def device(self) -> str:
        """Where the model runs; raises UserError if CUDA was asked for and is not there."""
        import torch

        if self.asked == "cuda" and not torch.cuda.is_available():
            raise UserError("torch cannot use CUDA here (no GPU, or a CPU build of torch); mend that, or give --device auto")
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.asked == "auto" else self.asked

    @cached_property
    def processor(self) -> Any:
        from transformers import AutoProcessor

        processor = self._load(AutoProcessor)
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # what is generated stands to the right of the prompt
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return processor

    @cached_property
    def model(self) -> Any:
        import torch
        from transformers import AutoModelForImageTextToText

        dtype = torch.float32 if self.device == "cpu" else torch.float16
        return self._load(AutoModelForImageTextToText, dtype=dtype).to(self.device).eval()

    def _load(self, cls: Any, **options: Any) -> Any:
        where = {} if Path(self.row.repo).is_dir() else {"revision": self.row.revision}
        try:
            return cls.from_pretrained(self.row.repo, **where, **options)
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            advice = "go online once, or give --captioner FOLDER with the model's files"
            raise UserError(f"cannot load the captioner {self.row.repo} ({reason}); {advice}") from None

    def describe(self, images: Sequence[Image.Image], count: int = 1, seed: int = 0) -> list[list[str]]:
        """Return `count` sentences for each RGB picture: the likeliest, then others drawn from `seed`."""
        first = self._generate(images, num_beams=1, do_sample=False)
        texts = [[text] for text in first]
        for number in range(1, count):
            for found, image in zip(texts, images, strict=True):
                # One picture at a time: what is drawn for it must not depend on which others share the batch.
                _seed(f"{seed}/{number}", image)
                found += self._generate([image], do_sample=True, top_p=0.9, temperature=0.8, num_beams=1)
        return texts

    def _generate(self, images: Sequence[Image.Image], **options: Any) -> list[str]:
        import torch

        inputs = self._inputs(images).to(self.device, self.model.dtype)
        with torch.inference_mode():
            ids = self.model.generate(**inputs, max_new_tokens=self.row.max_new_tokens, **options)
        prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs and not self.model.config.is_encoder_decoder else 0
        # Some models give the prompt back, others only what is new.
        echoed = prompt and ids.shape[1] > prompt and bool((ids[:, :prompt] == inputs["input_ids"]).all())
        return [plain(text) for text in self.processor.batch_decode(ids[:, prompt:] if echoed else ids, skip_special_tokens=True)]

    def _inputs(self, images: Sequence[Image.Image]) -> Any:
        row = self.row
        if row.chat:
            content = [{"type": "image"}, {"type": "text", "text": row.prompt}]
            prompt = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        else:
            prompt = row.prompt
        texts = {"text": [prompt] * len(images), "padding": True} if prompt else {}
        return self.processor(images=list(images), return_tensors="pt", **texts)


def _seed(salt: str, image: Image.Image) -> None:
    """Seed what sampling draws from by the picture itself."""
    import hashlib

    import torch

    torch.manual_seed(int.from_bytes(hashlib.sha256(salt.encode() + image.tobytes()).digest()[:7], "big"))


def plain(text: str) -> str:
    """Make one line of an answer, with neither quotes around it nor a full stop, which would stand before the next tag's comma."""
    return " ".join(text.split()).strip("\"' ").rstrip(". ")
