"""A full fine-tune: the base's own weights are what is trained, behind the same face as an adapter's network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prep.options import UserError
from train.adapters.network import Group, Network
from train.stability import parts_of

if TYPE_CHECKING:
    from train.config import NetworkConfig, TrainConfig
    from train.families.sd import Model


class FullNetwork(Network):
    """The whole UNet, the text encoders, or both, in float32. It has no `layers`: those are an adapter's.

    A `multiplier` of 0 is the base: its weights are read again from disk and changed places with, tensor by tensor, so that the trained
    ones lie in the computer's memory meanwhile and come back as they were.
    """

    def __init__(self, parts: Mapping[str, nn.Module], read_base: Callable[[], Mapping[str, nn.Module]]) -> None:
        self._strength, self._away = 1.0, dict[str, Tensor]()  # the weights that are not in place now
        super().__init__()
        self._read_base = read_base
        for name, part in parts.items():
            self.add_module(name, part)
            part.requires_grad_(True)

    @classmethod
    def of(cls, config: NetworkConfig, model: Model) -> FullNetwork:
        """Train the parts of a model that the settings name; the others stay frozen."""
        wanted = {"unet": config.train_unet, "text_encoder": config.train_text_encoder}
        names = [name for name in parts_of(model) if wanted.get(_part(name))]

        def read_base() -> Mapping[str, nn.Module]:
            from train.families import load_model

            found = parts_of(load_model(str(model.path), prediction_type=model.prediction_type))
            return {name: found[name] for name in names}

        return cls({name: module for name, module in parts_of(model).items() if name in names}, read_base)

    @property
    def multiplier(self) -> float:  # type: ignore[override]
        """1, or 0 for the base; nothing in between."""
        return self._strength

    @multiplier.setter
    def multiplier(self, value: float) -> None:
        if value not in (0, 1):
            raise ValueError(f"a full fine-tune has no strength of {value:g}, only 1 and 0")
        if value != self._strength:
            self._exchange()
            self._strength = value

    @torch.no_grad()
    def _exchange(self) -> None:
        """Let the base's weights and the trained ones change places."""
        away = self._away or {f"{part}.{name}": p.detach() for part, module in self._read_base().items() for name, p in module.named_parameters()}
        coming_back = bool(self._away)
        for name, parameter in self.named_parameters():
            own = parameter.detach().to("cpu", copy=True)
            parameter.copy_(away[name])
            away[name] = own
        self._away = {} if coming_back else away

    def remove(self) -> None:
        """Give the model its base's weights back, frozen."""
        self.multiplier = 0.0
        self._away = {}
        self.requires_grad_(False)

    def parameters_of(self, part: str) -> list[nn.Parameter]:
        """List the trainable tensors of "unet" or "text_encoder", which are both encoders' where there are two."""
        return [parameter for name, parameter in self.named_parameters() if _part(name.partition(".")[0]) == part]

    def groups(self) -> list[Group]:
        """Group the parameters by learning rate, the UNet's first."""
        found = [Group(part, part, self.parameters_of(part)) for part in ("unet", "text_encoder")]
        return [group for group in found if group.parameters]

    def state(self) -> dict[str, Tensor]:
        """Return the trained tensors themselves, no copies: they are many gigabytes, and are written before the next step."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a state; raises UserError if it is not of these parts."""
        own = dict(self.named_parameters())
        wrong = sorted(own.keys() ^ state.keys()) or [name for name, parameter in own.items() if parameter.shape != state[name].shape]
        if wrong:
            raise UserError(f"the saved weights do not fit this base model ({len(wrong)} differ, {wrong[0]} first); use the base they were made of")
        for name, parameter in own.items():
            parameter.copy_(state[name])


def _part(name: str) -> str:
    """Return the name by which the settings know a part."""
    return name.removesuffix("_2")


def full_network(config: TrainConfig, model: Model) -> FullNetwork:
    """Let the model itself be trained; raises UserError if its folder could not be written in the end."""
    folder = config.output.file("")
    if folder.exists() and not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is there, and is no model that the result could replace; move it away, or give another output_name")
    return FullNetwork.of(config.network, model)
