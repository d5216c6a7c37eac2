"""LoRA on plain layers: identity at first, exact where it acts, gone when removed."""

import pytest
import torch

from prep.options import UserError
from tests.train.adapters import bases
from tests.train.adapters.bases import Base, LoRANetwork


@pytest.fixture
def base() -> Base:
    return bases.base()


@pytest.fixture
def x() -> torch.Tensor:
    return bases.picture()


def network(base: Base, seed: int = 3, **more: float) -> LoRANetwork:
    return LoRANetwork(base.targets(), int(more.get("dim", 4)), more.get("alpha", 2.0), torch.Generator().manual_seed(seed))


def shaken(net: LoRANetwork) -> LoRANetwork:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(5))
    return net


def test_a_fresh_network_changes_nothing(base: Base, x: torch.Tensor) -> None:
    before = base(x)
    network(base)
    assert torch.equal(base(x), before)


def test_the_update_is_alpha_over_rank_up_down(base: Base, x: torch.Tensor) -> None:
    net = shaken(network(base))
    with_lora = base(x)
    state = net.state()
    net.remove()
    for target in base.targets():
        up, down = state[f"{target.name}.lora_up.weight"], state[f"{target.name}.lora_down.weight"]
        target.module.weight += (2.0 / 4) * (up.flatten(1) @ down.flatten(1)).view_as(target.module.weight)
    assert torch.allclose(base(x), with_lora, atol=1e-4)


def test_removed_or_switched_off_it_is_gone(base: Base, x: torch.Tensor) -> None:
    before = base(x)
    net = shaken(network(base))
    assert not torch.allclose(base(x), before)
    net.multiplier = 0.0
    assert torch.equal(base(x), before)
    net.multiplier = 1.0
    net.remove()
    assert torch.equal(base(x), before)


def test_gradients_reach_the_lora_only(base: Base, x: torch.Tensor) -> None:
    net = network(base)
    base(x).square().sum().backward()
    assert all(parameter.grad is None for parameter in base.parameters())
    assert all(layer.up.grad.abs().sum() > 0 for layer in net.layers.values())


def test_names_and_shapes_are_kohyas(base: Base) -> None:
    shapes = {key: tuple(t.shape) for key, t in network(base).state().items()}
    assert shapes == {
        "lora_unet_conv.lora_down.weight": (4, 4, 3, 3),
        "lora_unet_conv.lora_up.weight": (8, 4, 1, 1),
        "lora_unet_conv.alpha": (),
        "lora_unet_point.lora_down.weight": (4, 8, 1, 1),
        "lora_unet_point.lora_up.weight": (8, 4, 1, 1),
        "lora_unet_point.alpha": (),
        "lora_te_linear.lora_down.weight": (4, 8),
        "lora_te_linear.lora_up.weight": (6, 4),
        "lora_te_linear.alpha": (),
    }


def test_the_seed_fixes_the_start_and_global_chance_is_left_alone(base: Base) -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    first, second, other = network(base).state(), network(base).state(), network(base, seed=4).state()
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["lora_unet_conv.lora_down.weight"], other["lora_unet_conv.lora_down.weight"])
    bound = 1 / (4 * 3 * 3) ** 0.5  # Kaiming-uniform with a = sqrt(5)
    assert 0.9 * bound < first["lora_unet_conv.lora_down.weight"].abs().max() <= bound


def test_a_state_round_trip_keeps_ranks_alphas_and_output(base: Base, x: torch.Tensor) -> None:
    net = shaken(network(base, dim=3, alpha=1.5))
    state, wanted = net.state(), base(x)
    net.remove()
    del state["lora_unet_point.alpha"]  # a missing alpha means alpha = rank
    copy = LoRANetwork.from_state(base.targets(), state)
    assert copy.layers["lora_unet_conv"].alpha == 1.5
    assert copy.layers["lora_unet_point"].alpha == 3.0
    copy.layers["lora_unet_point"].alpha = 1.5
    assert torch.equal(base(x), wanted)


def test_a_file_for_some_layers_leaves_the_others_plain(base: Base) -> None:
    state = {key: t for key, t in network(base).state().items() if "_te_" in key}
    assert list(LoRANetwork.from_state(base.targets(), state).layers) == ["lora_te_linear"]


def test_a_square_matrix_fits_a_point_convolution(base: Base) -> None:
    state = shaken(network(base)).state()
    flat = {key: t.flatten(1) if "point" in key and t.ndim == 4 else t for key, t in state.items()}
    loaded = LoRANetwork.from_state(base.targets(), flat).state()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("lora_unet_conv.lora_up.weight"), "missing lora_unet_conv.lora_up.weight"),
        (lambda s: s.update({"lora_unet_nowhere.lora_down.weight": torch.zeros(4, 8)}), "unknown lora_unet_nowhere"),
        (lambda s: s.update({"lora_te_linear.lora_up.weight": torch.zeros(5, 4)}), r"is \(5, 4\), not \(6, 4\)"),
    ],
)
def test_what_does_not_fit_is_named(base: Base, change: object, words: str) -> None:
    state = network(base).state()
    change(state)
    with pytest.raises(UserError, match=words):
        LoRANetwork.from_state(base.targets(), state)


def test_parts_can_be_told_apart(base: Base) -> None:
    net = network(base)
    assert len(net.parameters_of("unet")) == 4
    assert len(net.parameters_of("text_encoder")) == 2
    assert len(list(net.parameters())) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_bases_keep_their_type(base: Base, x: torch.Tensor, dtype: torch.dtype) -> None:
    net = shaken(network(base))
    base.to(dtype)
    assert base(x.to(dtype)).dtype == dtype
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        base.float()(x).float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())


def test_a_network_can_step_aside_for_a_while(base: Base, x: torch.Tensor) -> None:
    plain = base(x)
    net = shaken(network(base))
    trained = base(x)
    with net.aside():
        assert torch.allclose(base(x), plain)
    assert torch.allclose(base(x), trained)
    assert not torch.allclose(trained, plain)
