"""Precision, broken numbers and signals."""

import math
import signal
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from prep.options import UserError
from tests.train.adapters.bases import LoRANetwork
from train.runtime import NotFiniteError, Runtime, StoppedError, StopSignals, choose_precision

from .adapters.bases import FakeTarget


@pytest.mark.parametrize(
    ("setting", "device", "has_bf16", "precision"),
    [
        ("auto", "cpu", False, "no"),
        ("auto", "mps", False, "no"),
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda", False, "fp16"),
        ("no", "cuda", True, "no"),
        ("fp16", "cuda", True, "fp16"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_precision(setting: str, device: str, has_bf16: bool, precision: str) -> None:
    found, why = choose_precision(setting, device, has_bf16)
    assert found == precision
    assert why


def test_bf16_on_a_gpu_without_it_is_refused() -> None:
    with pytest.raises(UserError, match="has no bf16"):
        choose_precision("bf16", "cuda", False)


def test_update_clips_and_returns_the_norm_before() -> None:
    runtime, weight = Runtime.choose("no"), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    assert runtime.backward((weight * torch.tensor([30.0, 40.0])).sum() + 2) == 2.0
    assert runtime.update(optimizer, [weight], 1.0) == pytest.approx(50.0)
    assert weight.tolist() == pytest.approx([-0.6, -0.8], rel=1e-4)
    assert weight.grad is None
    runtime.backward((weight * torch.tensor([3.0, 4.0])).sum())
    assert runtime.update(optimizer, [weight], 0.0) == pytest.approx(5.0), "0 leaves gradients as they are"
    assert weight.tolist() == pytest.approx([-3.6, -4.8], rel=1e-4)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_numbers_never_reach_the_weights(broken: float) -> None:
    runtime, weight = Runtime.choose("no"), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with pytest.raises(NotFiniteError):
        runtime.backward((weight + broken).sum())
    weight.grad = torch.tensor([broken])
    with pytest.raises(NotFiniteError):
        runtime.update(optimizer, [weight], 1.0)
    assert weight.tolist() == [0.0]


def test_fp16_scales_the_loss_and_steps_alike() -> None:
    runtime, weight = Runtime.choose("fp16"), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    runtime.backward((weight * 3).sum())
    assert weight.grad.item() > 3
    assert runtime.update(optimizer, [weight], 0.0) == pytest.approx(3.0)
    assert weight.item() == pytest.approx(-3.0)


class Card:
    """Stands in for torch.cuda: a card that has bf16, one that only emulates it, or one that does not know it."""

    def __init__(self, name: str, native: bool, emulated: bool) -> None:
        self.name, self.native, self.emulated = name, native, emulated

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return self.native or (including_emulation and self.emulated)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(
    ("card", "setting", "precision", "words"),
    [
        (Card("RTX 3060", True, True), "auto", "bf16", "RTX 3060, mixed precision bf16 (the GPU has it, and it needs no loss scaling)"),
        (Card("Tesla T4", False, True), "auto", "fp16", "Tesla T4, mixed precision fp16 (this GPU has no bf16, so losses are scaled up)"),
        (Card("GTX 1080", False, False), "auto", "fp16", "GTX 1080, mixed precision fp16 (this GPU has no bf16, so losses are scaled up)"),
        (Card("RTX 3060", True, True), "fp16", "fp16", "RTX 3060, mixed precision fp16 (as set)"),
        (Card("RTX 3060", True, True), "no", "no", "RTX 3060, no mixed precision (as set)"),
    ],
)
def test_what_a_card_can_do_decides_and_is_said(monkeypatch: pytest.MonkeyPatch, card: Card, setting: str, precision: str, words: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", card.is_bf16_supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: card.name)
    runtime = Runtime.choose(setting)
    assert (runtime.precision, runtime.description) == (precision, words)
    assert (runtime.scaler is not None) == (precision == "fp16")
    assert runtime.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16, "no": None}[precision]


def test_emulated_bf16_is_refused_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", Card("Tesla T4", False, True).is_bf16_supported)
    with pytest.raises(UserError, match="has no bf16"):
        Runtime.choose("bf16")


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW], ids=["plain", "fused"])
def test_fp16_skips_an_overflow_and_goes_on_with_a_smaller_scale(make: type[torch.optim.Optimizer]) -> None:
    runtime, weight = Runtime.choose("fp16"), nn.Parameter(torch.zeros(1))
    optimizer = make([weight], lr=1.0, **({"fused": True} if make is torch.optim.AdamW else {}))
    assert runtime.scaler
    runtime.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    runtime.backward((weight * 3).sum())
    weight.grad.mul_(math.inf)
    assert not math.isfinite(runtime.update(optimizer, [weight], 1.0))
    assert weight.item() == 0.0, "the overflow never reaches the weight"
    assert runtime.scaler.get_scale() == 2.0
    runtime.backward((weight * 3).sum())
    assert runtime.update(optimizer, [weight], 0.0) == pytest.approx(3.0)
    assert weight.item() < 0.0


def test_fp16_that_overflows_at_every_scale_is_said_and_not_skipped_for_ever() -> None:
    runtime, weight = Runtime.choose("fp16"), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    skipped = 0
    with pytest.raises(NotFiniteError, match="however little fp16 scales it"):
        for _ in range(30):
            runtime.backward((weight * 3).sum())
            weight.grad.fill_(math.nan)
            runtime.update(optimizer, [weight], 1.0)
            skipped += 1
    assert skipped == 16, "from 65536 down to 1"
    assert weight.item() == 0.0


@pytest.mark.parametrize(("scaled", "kept"), [(False, False), (True, True)])
def test_scaling_keeps_gradients_that_fp16_would_lose(scaled: bool, kept: bool) -> None:
    runtime, weight = Runtime.choose("fp16"), nn.Parameter(torch.ones(1, 1))  # float32, as the LoRA's
    if not scaled:
        runtime.scaler = None
    with torch.autocast("cpu", torch.float16):
        out = nn.functional.linear(torch.ones(1, 1), weight)
    assert out.dtype == torch.float16
    runtime.backward(1e-9 * out.float().sum())  # under fp16's smallest number, 6e-8
    optimizer = torch.optim.SGD([weight], lr=0.0)
    assert (runtime.update(optimizer, [weight], 0.0) == pytest.approx(1e-9, rel=1e-2)) == kept


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_lora_stays_in_float32_beside_a_base_in_half_precision(precision: str) -> None:
    base = nn.Linear(6, 6)
    network = LoRANetwork([FakeTarget("a", base, "unet")], 2, 2.0, torch.Generator().manual_seed(0))
    runtime = Runtime.choose(precision)
    base.requires_grad_(False).to(runtime.dtype)  # as `place` does on a GPU
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    with runtime.autocast():
        loss = base(torch.ones(3, 6)).float().square().mean()
    runtime.backward(loss)
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in network.parameters())
    runtime.update(optimizer, list(network.parameters()), 1.0)
    layer = network.layers["a"]
    assert layer.up.dtype == torch.float32 and layer.up.abs().max() > 0, "steps that half precision would round away add up"
    assert base.weight.dtype == runtime.dtype


def test_frozen_modules_take_no_gradient() -> None:
    module = nn.Linear(2, 2)
    Runtime.choose("bf16").place(module)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training


def test_a_base_on_the_processor_computes_the_same_in_half_the_memory() -> None:
    runtime, x = Runtime.choose("bf16"), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(288, 6))
    with torch.no_grad(), runtime.autocast():
        before = module(x)
        runtime.place(module)
        torch.testing.assert_close(module(x), before, rtol=0.01, atol=0.01)
    assert [parameter.dtype for parameter in module.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 2 + [torch.bfloat16] * 2


def test_moving_a_batch_keeps_what_is_no_tensor() -> None:
    @dataclass
    class Batch:
        pixels: torch.Tensor
        captions: list[str]

    runtime = Runtime.choose("no")
    runtime.device = torch.device("meta")
    moved = runtime.moved(Batch(torch.zeros(1), ["a"]))
    assert moved.pixels.device.type == "meta"
    assert moved.captions == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_while_held_and_stops_else(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        with signals.held():
            signal.raise_signal(number)
            assert signals.caught == number
            with pytest.raises(StoppedError):  # the second one does not wait
                signal.raise_signal(number)
        with pytest.raises(StoppedError) as stopped:
            signal.raise_signal(number)
        assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_frozen_weights_lie_in_the_type_that_is_computed_in(precision: str, dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    Runtime.choose(precision).place(module)
    weights = list(module.parameters())
    assert {weight.dtype for weight in weights} == {dtype}
    assert not module.training and not any(weight.requires_grad for weight in weights)


@dataclass
class Told:
    states: torch.Tensor
    pooled: torch.Tensor | None = None


@dataclass
class Fed:
    latents: torch.Tensor
    text: Told
    captions: list[str]


def test_what_is_told_is_moved_with_the_batch() -> None:
    runtime, batch = Runtime.choose("no"), Fed(torch.zeros(1), Told(torch.zeros(2)), ["a"])
    assert runtime.moved(batch) is batch and runtime.pinned(batch) is batch, "on a processor it is where it should be"
    runtime.device = torch.device("meta")
    moved = runtime.moved(batch)
    assert moved.latents.device.type == moved.text.states.device.type == "meta"
    assert moved.text.pooled is None and moved.captions == ["a"]


def test_a_batch_for_cuda_is_pinned_on_the_gpu_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []

    def device(wanted: torch.device) -> nullcontext[None]:
        chosen.append(wanted)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    runtime = Runtime.choose("no")
    runtime.device = torch.device("cuda", 1)
    found = runtime.pinned(Fed(torch.zeros(1), Told(torch.zeros(2)), ["a"]))
    assert found.latents.sum() == 1 and found.text.states.sum() == 2 and chosen == [runtime.device]


@pytest.mark.parametrize(("kind", "precision", "casts"), [("cuda", "bf16", True), ("cuda", "no", False), ("cpu", "bf16", False)])
def test_only_a_gpu_in_half_precision_casts_the_whole_base(kind: str, precision: str, casts: bool) -> None:
    runtime = Runtime.choose(precision)
    runtime.device = torch.device(kind)
    assert runtime.casts_base == casts
