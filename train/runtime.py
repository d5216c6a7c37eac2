"""Where and how a run computes: device, precision, the backward pass, and signals that ask it to stop."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from prep.options import UserError
from train.processes import Processes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

B = TypeVar("B", bound=Any)

# device type -> what "auto" takes there, and why; a CUDA card is asked for bf16 first
AUTO = {
    "cuda": ("fp16", "this GPU has no bf16, so losses are scaled up"),
    "mps": ("no", "mixed precision on Apple GPUs is young"),
    # Measured on two AVX-512 bf16 cores, a step in bf16 against float32: the pocket base 0.31 s against 0.27, SD 1.5 at 256 px 2.2 s against 3.8.
    "cpu": ("no", "small models gain nothing from bf16 here; set it by hand for one of Stable Diffusion's size"),
}

ALONE = Processes()

# A loss scale under which fp16 is given up: the gradient then overflows even unscaled, 17 times in a row from the first scale of 65536.
LOWEST_SCALE = 1.0


class NotFiniteError(Exception):
    """The loss or its gradient became infinite or not a number."""


class StoppedError(Exception):
    """A signal ended the run, or `train control` did (0); `exit_code` is the shell's 128 + signal."""

    def __init__(self, number: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + number if number else 0


def choose_precision(setting: str, device: str, has_bf16: bool) -> tuple[str, str]:
    """Return "no", "fp16" or "bf16" for the setting mixed_precision, and why."""
    if setting == "bf16" and device == "cuda" and not has_bf16:
        raise UserError('mixed_precision = "bf16", but this GPU has no bf16; set it to "auto" or "fp16"')
    if setting != "auto":
        return setting, "as set"
    if device == "cuda" and has_bf16:
        return "bf16", "the GPU has it, and it needs no loss scaling"
    return AUTO[device]


@dataclass
class Runtime:
    """Plain torch on one device: `dtype` is autocast's, None for plain float32."""

    device: torch.device
    precision: str
    dtype: torch.dtype | None
    scaler: torch.amp.GradScaler | None
    description: str
    processes: Processes = ALONE

    @classmethod
    def choose(cls, mixed_precision: str, processes: Processes = ALONE) -> Runtime:
        """Take the GPU if there is one, this process's own if there are several, and the precision that suits it."""
        import torch

        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        device = processes.device or torch.device(kind)
        kind = device.type
        # Without the argument torch says yes for older cards as well, which emulate it, and slowly.
        has_bf16 = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision, why = choose_precision(mixed_precision, kind, has_bf16)
        dtype = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        # fp16 gradients underflow unless the loss is scaled up (https://arxiv.org/abs/1710.03740)
        scaler = torch.amp.GradScaler(kind) if precision == "fp16" else None
        name = torch.cuda.get_device_name(device) if kind == "cuda" else {"cpu": "the processor", "mps": "the Apple GPU"}[kind]
        words = "no mixed precision" if dtype is None else f"mixed precision {precision}"
        several = f"{processes.count} processes, each on " if processes.count > 1 else ""
        return cls(device, precision, dtype, scaler, f"{several}{name}, {words} ({why})", processes)

    @property
    def casts_base(self) -> bool:
        """Whether all frozen weights take the compute type on their way to the device, so that they need no other before."""
        return self.device.type == "cuda" and self.dtype is not None

    def place(self, *modules: nn.Module, device: torch.device | None = None) -> None:
        """Move frozen modules to the device, or to another; they hold weights in the compute type, which halves their memory.

        On a processor only those do that autocast would turn to it in every step, so that all is computed as before.
        """
        import torch

        for module in modules:
            module.requires_grad_(False).eval()
            # torch's own `to`: diffusers' one warns of the cast, which autocast makes harmless
            torch.nn.Module.to(module, device=device or self.device, dtype=self.dtype if self.casts_base else None)
            for layer in module.modules() if self.dtype and self.device.type == "cpu" else ():
                if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
                    torch.nn.Module.to(layer, dtype=self.dtype)

    def autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def moved(self, batch: B) -> B:
        """Return a batch whose tensors lie on the device; a pinned one is copied while the processor goes on."""
        if self.device.type == "cpu":
            return batch
        return changed(batch, lambda tensor: tensor.to(self.device, non_blocking=tensor.is_pinned()))

    def pinned(self, batch: B) -> B:
        """Return a batch in memory that a CUDA GPU copies from by itself; the same batch for other devices."""
        import torch

        if self.device.type != "cuda":
            return batch
        with torch.cuda.device(self.device):  # a thread begins on the first GPU, whichever its process computes on
            return changed(batch, torch.Tensor.pin_memory)

    def backward(self, loss: Tensor) -> float:
        """Add the loss's gradient and return its value; raises NotFiniteError before a broken loss can spoil the weights."""
        value = loss.item()  # the one sync point of a step
        if not math.isfinite(value):
            raise NotFiniteError("the loss is not a number")
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return value

    def update(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], max_grad_norm: float) -> float:
        """Clip the gradient, step, clear it, and return its norm before clipping; not finite where fp16 skipped the step."""
        import torch

        self.processes.sum_gradients(parameters)  # before anything looks at them: all processes then clip and skip alike
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf).item()
        if self.scaler is not None:
            self.scaler.step(optimizer)  # skips by itself what overflowed, and scales less next time
            self.scaler.update()
            if not math.isfinite(norm) and self.scaler.get_scale() < LOWEST_SCALE:
                raise NotFiniteError("the gradient is not a number, however little fp16 scales it")
        elif math.isfinite(norm):
            optimizer.step()
        else:
            raise NotFiniteError("the gradient is not a number")
        optimizer.zero_grad(set_to_none=True)
        return norm


def changed(record: B, change: Callable[[Tensor], Tensor]) -> B:
    """Return a dataclass, or one within it, with each of its tensors changed; what is no tensor stays."""
    import torch

    def of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return change(value)
        return changed(value, change) if dataclasses.is_dataclass(value) else value

    return dataclasses.replace(record, **{field.name: of(getattr(record, field.name)) for field in dataclasses.fields(record)})


class StopSignals:
    """Turn SIGINT and SIGTERM into a StoppedError: at once, or inside `held` when the caller is ready for it."""

    def __init__(self) -> None:
        self.caught: int | None = None
        self._holding = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[StopSignals]:
        """Only note the first signal while this block runs; a second one breaks it off."""
        self._holding = True
        try:
            yield self
        finally:
            self._holding = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._holding and self.caught is None:
            self.caught = number
        else:
            raise StoppedError(number, "stopped; what was saved before is whole")
