"""CLIP's text encoder (arxiv.org/abs/2103.00020), as Stable Diffusion reads it, and OpenCLIP's, which differs in size and activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prep.clip_bpe import EOS
from train.modules.blocks import Config, Embedding, LayerNorm, Linear, Part, Recomputed

DEFAULTS: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "projection_dim": 512, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
FIXED: dict[str, tuple[Any, ...]] = {"hidden_act": ("quick_gelu", "gelu"), "attention_dropout": (0, 0.0)}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x)}


@dataclass(frozen=True)
class Encoded:
    """What a text encoder makes of captions."""

    hidden_states: tuple[Tensor, ...]  # (B, 77, C) each: the embeddings, and what comes after each layer
    text_embeds: Tensor | None = None  # (B, P), each caption as a whole


class CLIPAttention(nn.Module):
    """Attention of tokens (B, n, C) to those before them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return out


class CLIPMLP(nn.Module):
    """(B, n, C) -> the same, wider inside."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class CLIPEncoderLayer(Recomputed):
    """Attention and a feed-forward layer, each beside its input (B, n, C)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn = CLIPAttention(config.hidden_size, config.num_attention_heads)
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = CLIPMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class CLIPTextEmbeddings(nn.Module):
    """Token ids (B, n) -> (B, n, C), each told its place."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        out: Tensor = self.token_embedding(input_ids) + self.position_embedding.weight[: input_ids.shape[1]]
        return out


class CLIPEncoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList([CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers)])


class CLIPTextTransformer(nn.Module):
    """The level that published files have in their tensors' names."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = CLIPTextEmbeddings(config)
        self.encoder = CLIPEncoder(config)
        self.final_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)


class CLIPTextModel(Part):
    """A text encoder; its name is what model_index.json and config.json call it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = Config.read(config, DEFAULTS, FIXED)
        self.text_model = CLIPTextTransformer(self.config)

    def forward(self, input_ids: Tensor) -> Encoded:
        """Encode token ids (B, n), n at most 77."""
        states: list[Tensor] = [self.text_model.embeddings(input_ids)]
        for layer in self.text_model.encoder.layers:
            states.append(layer(states[-1]))
        return Encoded(tuple(states), self.whole(states[-1], input_ids))

    def whole(self, last: Tensor, input_ids: Tensor) -> Tensor | None:
        """Return each caption as a whole, if the encoder was made to."""
        return None


class CLIPTextModelWithProjection(CLIPTextModel):
    """A text encoder that also says what a caption is as a whole: the state of its end mark, projected."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.text_projection = Linear(self.config.hidden_size, self.config.projection_dim, bias=False)

    def whole(self, last: Tensor, input_ids: Tensor) -> Tensor | None:
        ends = (input_ids == EOS).int().argmax(dim=-1)  # the first: where captions are padded with end marks there are more
        states = last[torch.arange(len(last), device=last.device), ends]
        out: Tensor = self.text_projection(self.text_model.final_layer_norm(states))
        return out
