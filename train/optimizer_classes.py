"""How a setting becomes an optimizer's class: import it, check its arguments, and try out one that nobody here vouches for."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import io
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from prep.options import UserError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

Maker = Callable[[list[dict[str, Any]]], "Optimizer"]  # parameter groups -> the optimizer

OURS = ("params", "lr", "name", "base_lr")  # keys of a group that the run sets
WORDS = ("true", "false", "none")  # as other trainers' users may write what Python capitalizes
# Shapes like those of a LoRA's two halves, of a linear layer and of a convolution, for trying out an optimizer.
SHAPES = ((4, 6), (6, 4), (4, 6, 3, 3), (6, 4, 1, 1))


def parse_arguments(text: str) -> dict[str, Any]:
    """Read "key=value key=value", values as Python writes them or plain words; raises UserError."""
    found: dict[str, Any] = {}
    for pair in text.split():
        key, _, value = pair.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*=\S+", pair) or key in OURS or key in found:
            raise UserError(
                f'optimizer_args holds {pair!r}; write each argument once, as "weight_decay=0.1 betas=0.9,0.99", and rates as learning_rate'
            )
        try:
            found[key] = ast.literal_eval(value.capitalize() if value in WORDS else value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found


def load_class(spec: str, extra: str) -> type[Optimizer]:
    """Import "module:Class", which the project's `extra` installs; raises UserError if it is not there or is no optimizer."""
    import torch

    module, _, name = spec.partition(":")
    try:
        there = importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(f"{package}, which has the optimizer {name}, cannot be imported ({error}); run pip install 'lora-atelier[{extra}]'") from None
    found = getattr(there, name, None)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise UserError(f"{module} has no optimizer {name!r}" + _meant(name, dir(there), "look up the class's name there"))
    return found


@functools.cache
def uncompiled(kind: type[Optimizer]) -> type[Optimizer]:
    """Return one of torch's optimizers without its wrappers for torch.compile, whose import takes as long as that of torch; others as they are."""
    import torch

    if not kind.__module__.startswith("torch.optim"):
        return kind
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(methods["step"])})


def check_arguments(found: type[Optimizer], arguments: Iterable[str]) -> None:
    """Raise UserError if a class takes no such argument; one that swallows any would ignore it, and nobody would know."""
    known = [key for key, parameter in inspect.signature(found).parameters.items() if parameter.kind != parameter.VAR_KEYWORD]
    for key in arguments:
        if key not in known:
            raise UserError(f"optimizer_args holds {key}, which {found.__name__} does not take" + _meant(key, known, "leave it out"))


def _meant(word: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f", did you mean {near[0]}?" if near else f"; {otherwise}"


def try_out(name: str, make: Maker) -> None:
    """See on small tensors that an optimizer steps, and that it goes the same way after it was saved and read; raises UserError."""
    import torch

    first, second = ([torch.nn.Parameter(torch.full(shape, 0.1)) for shape in SHAPES] for _ in range(2))
    try:
        with torch.random.fork_rng(devices=[]):
            _save_and_go_on(make, first, second)
    except pickle.UnpicklingError:
        raise UserError(f"{name} keeps a state that cannot be saved and read safely, so no run could be stopped; take another optimizer") from None
    except Exception as error:  # it may fail in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"{name} cannot train a LoRA ({reason}); set optimizer_args if something lacks, or take another optimizer") from None
    if not all(torch.equal(*pair) for pair in zip(first, second, strict=True)):
        raise UserError(f"{name} goes another way after it was saved and read, so a stopped run would end elsewhere; take another optimizer")


def _save_and_go_on(make: Maker, first: Sequence[nn.Parameter], second: Sequence[nn.Parameter]) -> None:
    """Step the first weights, give the second what would be saved then, and step both."""
    import torch

    one, saved = make([{"params": first}]), io.BytesIO()
    _step(one, first)
    torch.save(one.state_dict(), saved)
    with torch.no_grad():
        for weight, value in zip(second, first, strict=True):
            weight.copy_(value)
    saved.seek(0)
    other = make([{"params": second}])
    other.load_state_dict(torch.load(saved, weights_only=True))
    _step(one, first)
    _step(other, second)


def _step(optimizer: Optimizer, weights: Sequence[nn.Parameter]) -> None:
    import torch

    for sign in (1, -1):
        for weight in weights:
            weight.grad = sign * torch.linspace(-1, 2, weight.numel()).view(weight.shape)
        optimizer.step()
