"""Base models: which family they are, what they compute, and the layers a LoRA may change."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.clip_bpe import BOS, EOS
from prep.options import UserError
from tests.train.adapters.bases import LoRANetwork
from tests.train.adapters.full_size import full_size
from train.families import FAMILIES, find_base, find_family, load_model
from train.families.sd import Conditioning, Model

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


@pytest.mark.parametrize(("name", "golden"), [("sd1", "lora-sd15-dim32-keys"), ("sd2", "lora-sd21-dim32-keys")])
def test_keys_and_shapes_equal_the_golden_ones(name: str, golden: str) -> None:
    wanted = json.loads(gzip.decompress((DATA / f"{golden}.json.gz").read_bytes()))
    with torch.device("meta"):
        network = LoRANetwork(full_size(name).targets(), 32, 16.0)
    found = {f"{key}.lora_{half}.weight": list(getattr(layer, half).shape) for key, layer in network.layers.items() for half in ("down", "up")}
    assert found | {f"{key}.alpha": [] for key in network.layers} == wanted


def test_resolution_is_the_bases_own(model: Model) -> None:
    assert (model.resolution, model.vae_scale) == (64, 4)
    assert full_size("sd1").resolution == 512


def test_everything_is_frozen_and_in_eval_mode(model: Model) -> None:
    for part in (model.unet, model.vae, *model.text_encoders):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_clip_skip_counts_layers_from_the_last(model: Model) -> None:
    encoder, ids = model.text_encoders[0], model.tokenize(["a cat", "tok, a dog"])
    norm = encoder.text_model.final_layer_norm
    with torch.no_grad():
        output = encoder(ids[:, 0])
        for skip in (1, 2, 3):
            assert torch.equal(model.conditioning(ids, skip).states, norm(output.hidden_states[-skip]))
    with pytest.raises(UserError, match="clip_skip is 4"):
        model.conditioning(ids, 4)


@pytest.mark.parametrize("length", [75, 150, 225])
def test_long_captions_are_encoded_chunk_by_chunk(model: Model, length: int) -> None:
    ids = model.tokenize(["tag, " * 150, "short"], length)
    with torch.no_grad():
        states = model.conditioning(ids).states
        encoder = model.text_encoders[0]
        apart = [encoder.text_model.final_layer_norm(encoder(ids[:, i]).hidden_states[-1]) for i in range(length // 75)]
    assert states.shape == (2, length + 2, 32)
    wanted = [apart[0][:, :1], *(part[:, 1:-1] for part in apart), apart[-1][:, -1:]]
    assert torch.allclose(states, torch.cat(wanted, 1), atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=3), st.sampled_from([75, 150, 225]))
def test_tokens_are_whole_chunks(model: Model, captions: list[str], length: int) -> None:
    ids = model.tokenize(captions, length)
    assert ids.shape == (len(captions), length // 75, 77) and ids.dtype == torch.int64
    assert (ids[..., 0] == BOS).all() and (ids[..., -1] == EOS).all()


def test_latents_are_scaled_and_come_back(model: Model) -> None:
    pixels = torch.rand(2, 3, 64, 96) * 2 - 1
    mean, std = model.encode_images(pixels)
    assert mean.shape == std.shape == (2, 4, 16, 24) and (std > 0).all()
    assert torch.allclose(mean, model.vae.encode(pixels)[0] * 0.18215)
    decoded = model.decode_latents(mean)
    assert decoded.shape == (2, 3, 64, 96) and decoded.min() >= 0 and decoded.max() <= 1


def test_prediction_has_the_latents_shape(model: Model) -> None:
    with torch.no_grad():
        prediction = model.denoise(torch.randn(2, 4, 16, 16), torch.tensor([1, 999]), Conditioning(torch.randn(2, 152, 32)))
    assert prediction.shape == (2, 4, 16, 16)


def edited(base: Path, target: Path, name: str, **changes: object) -> Path:
    """Copy a base's configs (not its weights) and change one of them."""
    shutil.copytree(base, target, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer"))
    config = json.loads((target / name).read_text(encoding="utf-8"))
    (target / name).write_text(json.dumps(config | changes), encoding="utf-8")
    return target


def test_family_is_found_from_the_configs(tiny_base: Path, tmp_path: Path) -> None:
    assert find_family(tiny_base) is FAMILIES["sd1"]
    second = edited(tiny_base, tmp_path / "second", "unet/config.json", use_linear_projection=True)
    assert find_family(second) is FAMILIES["sd2"]


def test_unknown_family_is_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = edited(tiny_base, tmp_path / "xl", "model_index.json", _class_name="StableCascadePipeline")
    with pytest.raises(UserError, match="StableCascadePipeline, which cannot be trained yet"):
        find_family(folder)


@pytest.mark.parametrize("base", ["./nowhere", "no/such/folder", "model.safetensors", "owner/model.safetensors", "nowhere"])
def test_wrong_path_is_one_sentence_and_asks_no_hub(base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="no base model at"):
        load_model(base)


def test_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*args: object, **kwargs: object) -> str:
        raise LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"'owner/model'.*\(no connection\)"):
        find_base("owner/model")


def test_hub_gives_one_weights_file_a_part(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository in several precisions: the configs come first, then only the best spelling that is there."""
    cached, asked = tmp_path / "cached", []
    hub = {f"{part}/{stem}.fp16.safetensors" for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model"))}
    hub |= {"vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"}

    def fetch(repo: str, allow_patterns: list[str] | str) -> str:
        if isinstance(allow_patterns, list):
            shutil.copytree(tiny_base, cached, ignore=shutil.ignore_patterns("*.safetensors"))
        elif allow_patterns in hub:
            asked.append(allow_patterns)
            (cached / allow_patterns).touch()
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert find_base("owner/model") == cached
    assert set(asked) == hub - {"vae/diffusion_pytorch_model.bin"}


def test_half_a_folder_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model_index\.json"):
        load_model(str(tmp_path))
    bare = edited(tiny_base, tmp_path / "bare", "model_index.json")
    with pytest.raises(UserError, match="unet has no weights"):
        load_model(str(bare))


def test_broken_weights_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_base, folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read"):
        load_model(str(folder))


def test_half_precision_variant_loads(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny_base, folder)
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}.fp16.safetensors")
    assert load_model(str(folder), torch.bfloat16).unet.dtype == torch.bfloat16
