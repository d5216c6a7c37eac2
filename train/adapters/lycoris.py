"""Adapters of the package lycoris-lora (https://github.com/KohakuBlueleaf/LyCORIS): LoHa, LoKr and others, behind this project's hooks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from prep.options import UserError, load_object
from train.adapters import kind_of
from train.adapters.dropout import Draw, Dropouts
from train.adapters.network import Layer
from train.adapters.plan import LayerPlan

CLASSES = {
    "loha": "lycoris.modules.loha:LohaModule",
    "lokr": "lycoris.modules.lokr:LokrModule",
    "glora": "lycoris.modules.glora:GLoRAModule",
    "ia3": "lycoris.modules.ia3:IA3Module",
    "diag-oft": "lycoris.modules.diag_oft:DiagOFTModule",
}
# network_args -> LyCORIS's constructor, where the two differ.
RENAMED = {"dora_wd": "weight_decompose"}


class LycorisLayer(Layer):
    """One layer's LyCORIS module. It computes the changed weight in float32, whatever type the base has."""

    def __init__(self, module: Any, dropouts: Dropouts = Dropouts()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.module = module
        self.dropouts = dropouts

    @classmethod
    def fresh(cls, base: nn.Module, plan: LayerPlan, dropouts: Dropouts, generator: torch.Generator | None, options: Any = None) -> Self:
        """Make a layer that is to be trained; `options` is the algorithm's name and its arguments."""
        algo, arguments = options
        dropped = {"rank_dropout": dropouts.rank, "module_dropout": dropouts.module}
        named = {RENAMED.get(key, key): value for key, value in arguments.items()}
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with Draw(seed).as_global(torch.device("cpu")), _quiet():  # it draws its start from torch's global chance
            return cls(_class(algo)("", base, lora_dim=plan.dim, alpha=plan.alpha, **dropped, **named), dropouts)

    @classmethod
    def from_tensors(cls, base: nn.Module, tensors: Mapping[str, Tensor], algo: str = "") -> Self:
        """Make the layer that a file holds; raises UserError if its tensors do not fit the base or each other."""
        kind = _class(algo or kind_of(f".{suffix}" for suffix in tensors) or "")
        held = {"alpha": torch.tensor(0.0), **tensors}
        given = [held[suffix].float() if suffix in held else None for suffix in kind.weight_list]
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), _quiet():
                if "on_input" in held:  # IA3: the package forgets which side a file is for
                    return cls(kind("", base, train_on_input=bool(held["on_input"])))
                return cls(kind.make_module_from_state_dict("", base, *given))
        except (RuntimeError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"a layer of the {algo} file does not fit this base model ({reason}); use the base it was made for") from None

    def forward(self, x: Tensor, output: Tensor, multiplier: float, draw: Draw | None) -> Tensor:
        module = self.module
        module.multiplier = multiplier
        module.org_forward = lambda *_, **__: output  # the base has computed it already
        module.train(draw is not None)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.float32)
        with draw.as_global(x.device) if draw and self.dropouts else nullcontext():
            changed: Tensor = module(x)
        return changed.to(output.dtype)

    def tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.module.state_dict()
        return found

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            own = dict(self.module.state_dict())
            self.module.load_state_dict({suffix: tensors[suffix].reshape(t.shape) for suffix, t in own.items() if suffix in tensors}, strict=False)

    def weight_update(self) -> Tensor:
        """Return the change of the weight, whatever the algorithm: what the module would hand to the layer's own operation."""
        module = self.module
        module.multiplier = 1.0
        module.org_forward = lambda *_, **__: 0.0
        module.train(False)
        applied, module.op = module.op, lambda x, weight, *_, **__: weight
        try:
            update: Tensor = module(torch.zeros(1, device=next(module.parameters()).device))
        finally:
            module.op = applied
        return update

    def limit(self, max_norm: float) -> Tensor:
        """Scale all factors of the product alike, so that the update's norm is at most `max_norm`.

        The package's own way keeps the scale in a buffer that no file holds, so a run that goes on would be another.
        """
        norm: Tensor = self.module.get_weight(self.module.shape).norm()
        ratio = (max_norm / norm.clamp(min=1e-30)).clamp(max=1)
        factors = [p for name, p in self.module.named_parameters() if name != "dora_scale"]
        for factor in factors:
            factor.mul_(ratio ** (1 / len(factors)))
        return norm * ratio


def _class(algo: str) -> Any:
    """Import an algorithm's class, with a base weight that is always float32.

    The difference of two half-precision weights would lose what the adapter adds to them.
    """
    try:
        with _quiet():
            found = load_object(CLASSES[algo])
    except ImportError as error:
        raise UserError(f"{algo} needs the package lycoris-lora ({error}); run pip install 'lora-atelier[lycoris]'") from None

    def weight(module: Any) -> Tensor:
        full: Tensor = module.org_module[0].weight.detach().float()
        return full

    return type(found.__name__, (found,), {"org_weight": property(weight), "_current_weight": weight})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep LyCORIS from telling of each layer whose rank it changes."""
    logger = logging.getLogger("LyCORIS")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
