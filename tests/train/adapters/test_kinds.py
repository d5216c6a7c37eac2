"""Every row of ADAPTERS, and its variants: identity at first, exact as a weight, whole in a file, the same after a stop."""

import copy
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from prep.options import UserError, load_object
from tests.train.adapters.bases import Base, base, picture, shaken
from train.adapters import ADAPTERS, kind_of
from train.adapters.build import fresh_network, merge
from train.adapters.network import Network
from train.config import NetworkConfig

KINDS = [
    *((name, "") for name in ADAPTERS),
    ("loha", "dora_wd=true"), ("loha", "use_tucker=true"), ("lokr", "factor=2 decompose_both=true"), ("lokr", "full_matrix=true"),
    ("lokr", "dora_wd=true"), ("ia3", "train_on_input=true"), ("diag-oft", "rescaled=true"), ("diag-oft", "constraint=0.1"),
]  # fmt: skip


def built(of: Base, algo: str = "lora", args: str = "", seed: int = 3, **more: Any) -> Network:
    config = NetworkConfig(network_algo=algo, network_args=args, network_dim=2, network_alpha=1.5, **more)
    return fresh_network(config, of.targets(), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("algo", "args"), KINDS)
def test_kind(algo: str, args: str) -> None:
    plain, x = base(), picture()
    before = plain(x)
    network = built(plain, algo, args)
    assert torch.allclose(plain(x), before, atol=1e-6), "a fresh adapter changes nothing"
    plain(x).square().sum().backward()
    assert all(p.grad is None for p in plain.parameters()) and any(p.grad.abs().sum() > 0 for p in network.parameters() if p.grad is not None)

    shaken(network)
    wanted = plain(x)
    assert not torch.allclose(wanted, before, atol=1e-3)
    state = load(save(network.state()))
    assert {kind_of(key for key in state if key.startswith(layer.name)) for layer in plain.targets()} == {algo}
    network.multiplier = 0.0
    assert torch.equal(plain(x), before)
    network.remove()

    again = Network.from_state(plain.targets(), state)
    assert torch.allclose(plain(x), wanted, atol=1e-5), "the file holds all of it"
    again.remove()

    other = base()
    assert merge(state, other.targets(), 1.0) == 3
    assert torch.allclose(other(x), wanted, atol=2e-4), "as a change of the weight it is the same"


@pytest.mark.parametrize(("algo", "args"), KINDS)
def test_a_loaded_state_goes_on_bit_for_bit(algo: str, args: str) -> None:
    plain, x = base(), picture()
    network = built(plain, algo, args)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)

    def learn(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (plain(x) - 1).square().mean().backward()
            optimizer.step()

    learn(2)
    state, moments = network.state(), copy.deepcopy(optimizer.state_dict())
    learn(2)
    wanted = network.state()
    network.remove()
    network = built(plain, algo, args, seed=8)
    network.load(state)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    optimizer.load_state_dict(moments)
    learn(2)
    assert all(torch.equal(found, wanted[key]) for key, found in network.state().items())
    assert any(not torch.equal(state[key], wanted[key]) for key in state)


@pytest.mark.parametrize(
    ("algo", "dropout"), [(name, dropout) for name, row in ADAPTERS.items() for dropout in row.dropouts], ids=lambda value: str(value)
)
def test_dropout_is_the_drawn_one_and_no_other(algo: str, dropout: str) -> None:
    plain, x = base(), picture()
    net = shaken(built(plain, algo, **{dropout: 0.5}))
    whole = plain(x)
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    found = []
    for seed in (1, 2, 1):
        net.draw_dropout(torch.Generator().manual_seed(seed))
        found.append(plain(x))
        assert torch.equal(plain(x), found[-1]), "a repeated pass, as of gradient checkpointing, drops the same"
        with torch.no_grad():
            # Without gradients a CPU may sum in another order.
            assert torch.allclose(plain(x), whole, atol=1e-5), "where nothing is learned nothing is dropped"
    assert torch.equal(torch.rand(1), expected), "torch's global chance is left alone"
    assert torch.equal(found[0], found[2])
    seeds = {str(found[0]), str(found[1]), str(whole)}
    assert len(seeds) > 1


@pytest.mark.parametrize(("algo", "args"), [("lora", ""), ("loha", ""), ("lokr", ""), ("loha", "use_tucker=true"), ("lokr", "full_matrix=true")])
def test_limited_updates_have_the_norm_and_the_direction(algo: str, args: str) -> None:
    plain = base()
    network = shaken(built(plain, algo, args))
    before = {name: layer.weight_update().detach() for name, layer in network.layers.items()}
    limit = sorted(float(update.norm()) for update in before.values())[1]  # one is over it, one at it, one under it
    counts = network.limit_norms(limit)
    assert counts["norms_limited"] == 2 and counts["norm_max"] == pytest.approx(limit, rel=1e-4)
    for name, layer in network.layers.items():
        factor = min(1.0, limit / float(before[name].norm()))
        assert torch.allclose(layer.weight_update(), factor * before[name], atol=1e-5), name


@pytest.mark.parametrize("algo", ADAPTERS)
def test_half_precision_bases_keep_their_type_and_lose_no_small_update(algo: str) -> None:
    plain, x = base(), picture()
    exact = shaken(built(plain, algo)).state()
    wanted = plain(x)
    half = base().to(torch.bfloat16)
    Network.from_state(half.targets(), exact)
    found = half(x.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_every_row_loads_and_says_what_it_is() -> None:
    for name, row in ADAPTERS.items():
        assert load_object(row.layer) and row.description.endswith(".") and row.marks, name


def test_a_package_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lycoris"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lycoris", None)
    with pytest.raises(UserError, match=r"loha needs the package lycoris-lora .*; run pip install 'lora-atelier\[lycoris\]'"):
        built(base(), "loha")
