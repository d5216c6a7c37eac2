"""What a frozen text encoder makes of captions, kept in a store: it need not run in each step, nor lie on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from train.cache import Store, Tensors, hash_modules
from train.emphasis import weigh
from train.shortage import tried_twice

if TYPE_CHECKING:
    from torch import Tensor

    from train.config import TrainConfig
    from train.families.sd import Conditioning, Model

VERSION = 1  # raise it when the stored form changes


@dataclass(frozen=True)
class Wording:
    """Captions as tokens, with a weight for each token if any is weighted."""

    input_ids: Tensor  # as the model's `tokenize` makes them
    weights: Tensor | None = None  # (B, chunks, 77)


def tokenized(captions: Sequence[str], model: Model, config: TrainConfig) -> Wording:
    """Turn captions into tokens as the settings say."""
    import torch

    length = config.model.max_token_length
    if not config.data.weighted_captions:
        return Wording(model.tokenize(list(captions), length))
    texts, rows = zip(*(weigh(caption, length) for caption in captions), strict=True)
    weights = torch.tensor(rows)
    return Wording(model.tokenize(list(texts), length), None if bool((weights == 1).all()) else weights)


@dataclass(frozen=True)
class TextCache:
    """The conditioning of captions under one model's text encoders, as they are when it is opened."""

    store: Store
    model: Model
    config: TrainConfig
    encoder_hash: str
    known: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # caption -> its facts

    @classmethod
    def open(cls, store: Store, model: Model, config: TrainConfig) -> TextCache:
        """Open a store for the captions of a run."""
        return cls(store, model, config, hash_modules(model.text_encoders))

    def facts(self, caption: str) -> tuple[Any, ...]:
        """List what the features of a caption depend on: its tokens and their weights, the encoders, the layer, the stored form."""
        if caption not in self.known:
            wording = tokenized([caption], self.model, self.config)
            weights = None if wording.weights is None else wording.weights.tolist()
            tokens = (wording.input_ids.tolist(), weights)
            self.known[caption] = (VERSION, "text", *tokens, self.config.model.clip_skip, self.model.family.name, self.encoder_hash, "float32")
        return self.known[caption]

    def prepare(self, caption: str) -> None:
        """Encode a caption unless that is done."""
        self.store.prepare(self.facts(caption), lambda: self._encode(caption))

    def conditioning(self, captions: Sequence[str], sizes: Tensor) -> Conditioning:
        """Return what the UNet is told of some captions, in float32 on the CPU; `sizes` (B, 6) are told with them if the family does so."""
        import torch

        from train.families.sd import Conditioning

        found = [self.store.get(self.facts(caption), lambda text=caption: self._encode(text)) for caption in captions]  # type: ignore[misc]
        states = torch.stack([tensors["states"] for tensors in found])
        if "pooled" not in found[0]:
            return Conditioning(states)
        return Conditioning(states, torch.stack([tensors["pooled"] for tensors in found]), sizes)

    def _encode(self, caption: str) -> Tensors:
        import torch

        # One caption at a time: its features must not depend on which others it shares a batch with.
        wording = tokenized([caption], self.model, self.config)
        with torch.no_grad():
            told = tried_twice(
                lambda: self.model.conditioning(wording.input_ids, self.config.model.clip_skip, weights=wording.weights),
                "while a caption was encoded",
                "close what else uses the device's memory, and run again: what is encoded is kept",
            )
        parts = {"states": told.states, "pooled": told.pooled}
        return {name: part[0].float().cpu().contiguous() for name, part in parts.items() if part is not None}
