"""Balancing and levelling: the same updates bit for bit, and less lost when they are rounded."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from train.balance import balanced, levelled


def layer(up_size: float, down_size: float, seed: int = 0, rank: int = 4) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    spread = 10 ** (2 * torch.rand(rank, generator=draw) - 1)  # ranks of different sizes, as training leaves them
    return {
        "lora_unet_a.lora_up.weight": up_size * torch.randn(24, rank, generator=draw) * spread,
        "lora_unet_a.lora_down.weight": down_size * torch.randn(rank, 16, 3, 3, generator=draw),
        "lora_unet_a.alpha": torch.tensor(2.0),
    }


def update(state: dict[str, torch.Tensor]) -> torch.Tensor:
    up, down = (state[f"lora_unet_a.lora_{half}.weight"].double().flatten(1) for half in ("up", "down"))
    return up @ down


@given(st.floats(-9, 3), st.floats(-9, 3), st.integers(0, 99))
def test_the_product_is_the_same_bit_for_bit(up: float, down: float, seed: int) -> None:
    state = layer(10**up, 10**down, seed)
    found = balanced(state)
    assert torch.equal(update(found), update(state))
    up_half, down_half = found["lora_unet_a.lora_up.weight"], found["lora_unet_a.lora_down.weight"].flatten(1)
    ratio = up_half.double().square().mean(0).sqrt() / down_half.double().square().mean(1).sqrt()
    assert ((ratio >= 0.49) & (ratio <= 2.04)).all()


def test_half_precision_then_loses_nothing_but_digits() -> None:
    """An up half of 1e-7, as after the first steps of a low rate: in fp16 nearly a quarter of such numbers is 0."""
    state = layer(1e-7, 0.05)
    wanted, lost = update(state), []
    for version in (state, balanced(state)):
        halved = {key: tensor.half().float() for key, tensor in version.items()}
        lost.append(float((update(halved) - wanted).norm() / wanted.norm()))
    assert lost[0] > 0.05 and lost[1] < 5e-4


def test_zero_halves_and_tuckers_factors_stay() -> None:
    state = layer(0.0, 1.0) | {"lora_unet_b.hada_w1_a": torch.ones(2, 8), "lora_unet_b.hada_w1_b": 9 * torch.ones(2, 4)}
    found = balanced(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_products_of_lycoris_are_balanced_too() -> None:
    state = {
        "x.hada_w1_a": 1e-4 * torch.ones(8, 2),
        "x.hada_w1_b": torch.ones(2, 4),
        "x.lokr_w2_a": torch.ones(8, 2),
        "x.lokr_w2_b": 1e-6 * torch.ones(2, 4),
    }
    found = balanced(state)
    for pair in ("hada_w1", "lokr_w2"):
        assert torch.equal(found[f"x.{pair}_a"] @ found[f"x.{pair}_b"], state[f"x.{pair}_a"] @ state[f"x.{pair}_b"])
        assert 0.4 < float(found[f"x.{pair}_a"].mean() / found[f"x.{pair}_b"].mean()) < 2.1


def test_levelled_layers_have_one_alpha_and_the_same_updates() -> None:
    state = {}
    for i, alpha in enumerate((4.0, 8.0, 4.0, 3.0)):
        state |= {key.replace("_a.", f"_{i}."): tensor for key, tensor in layer(1.0, 1.0, i).items()} | {f"lora_unet_{i}.alpha": torch.tensor(alpha)}
    state["lora_te_a.lora_up.weight"], state["lora_te_a.lora_down.weight"] = torch.ones(4, 2), torch.ones(2, 4)
    found = levelled(state)
    assert {float(found[f"lora_unet_{i}.alpha"]) for i in range(4)} == {4.0} and "lora_te_a.alpha" not in found
    for i, alpha in enumerate((4.0, 8.0, 4.0, 3.0)):
        before, after = state[f"lora_unet_{i}.lora_up.weight"], found[f"lora_unet_{i}.lora_up.weight"]
        assert torch.equal(after, before) if alpha == 4 else torch.allclose(4.0 * after, alpha * before, rtol=2e-7, atol=0)
    assert torch.equal(found["lora_unet_1.lora_up.weight"], 2 * state["lora_unet_1.lora_up.weight"]), "a power of two is exact"
