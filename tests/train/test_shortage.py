"""Want of memory: what counts as such, how it is told, and that what can be tried again is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.train.test_run import configured
from train.cache import Store
from train.cli import main
from train.families import load_model
from train.families.sd import Model
from train.latents import LatentCache
from train.run import run
from train.sample import Generator, smaller
from train.shortage import ShortError, is_shortage, placed, tried_twice

GONE = torch.OutOfMemoryError("CUDA out of memory")


class Short:
    """A function that finds no memory in its first calls, or where `unless` does not hold."""

    def __init__(self, real: Any, times: int = 0, unless: Any = None) -> None:
        self.real, self.times, self.unless, self.calls = real, times, unless, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls <= self.times or (self.unless and not self.unless(*args)):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.real(*args, **options)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (GONE, True),
        (ShortError("here", "do this"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts(error: Exception, short: bool) -> None:
    assert is_shortage(error) == short


def test_the_place_nearest_to_the_user_is_told() -> None:
    with pytest.raises(ShortError, match=r"^out of memory at the door; open it$"), placed("at the door", "open it"), placed("inside", "look"):
        raise GONE
    with pytest.raises(RuntimeError, match=r"^other$"), placed("at the door", "open it"):
        raise RuntimeError("other")


def test_a_second_try_may_do() -> None:
    assert tried_twice(Short(lambda: 3, 1), "here", "wait") == 3
    with pytest.raises(ShortError, match="out of memory here; wait"):
        tried_twice(Short(lambda: 3, 2), "here", "wait")
    with pytest.raises(RuntimeError, match="size"):
        tried_twice(lambda: (_ for _ in ()).throw(RuntimeError("size")), "here", "wait")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("method", "words"), [("encode_images", r"while a picture of \d+x\d+ was encoded; lower resolution"), ("conditioning", "while a caption")]
)
def test_encoding_is_tried_again_and_then_told(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, method: str, words: str) -> None:
    config = configured(
        tiny_base, tiny_tree, max_train_steps=1, report_pictures=False, train_text_encoder=False, caption_dropout_rate=0.0, shuffle_caption=False
    )
    model = load_model(str(tiny_base))
    monkeypatch.setattr("train.families.load_model", lambda *_, **__: model)
    real = getattr(model, method)
    with monkeypatch.context() as patch:
        patch.setattr(model, method, Short(real, 2))
        with pytest.raises(ShortError, match=words):
            run(config)
    with monkeypatch.context() as patch:
        patch.setattr(model, method, Short(real, 1))
        assert run(config).steps == 1


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


def test_pictures_are_drawn_in_smaller_batches_then(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"prompts": ["tok, a", "b", "c", "d", "e"], "seeds": range(5), "steps": 2}
    plain = list(Generator(model).draw(**asked))
    short = Short(model.decode_latents, unless=lambda latents: len(latents) <= 2)
    monkeypatch.setattr(model, "decode_latents", short)
    found = list(Generator(model).draw(**asked, batch_size=4))
    assert short.calls == 4, "four at once, then two, two and one"
    for one, other in zip(found, plain, strict=True):
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) <= 1


def test_a_single_picture_without_memory_is_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "decode_latents", Short(model.decode_latents, 9))
    with pytest.raises(ShortError, match="while a picture of 64x32 was drawn; give a smaller size"):
        list(Generator(model).draw(["a", "b"], [0, 1], steps=1, size=(64, 32)))
    monkeypatch.setattr(model, "decode_latents", lambda latents: (_ for _ in ()).throw(RuntimeError("size mismatch")))
    with pytest.raises(RuntimeError, match="size mismatch"):
        list(Generator(model).draw(["a", "b"], [0, 1], steps=1))


class Away:
    """A VAE on a GPU, as far as anybody asks."""

    def __init__(self) -> None:
        self.device = torch.device("cuda")

    def to(self, device: str) -> None:
        self.device = torch.device(device)


def test_the_processor_decodes_and_encodes_what_the_gpu_has_no_room_for(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    vae = Away()
    assert smaller(["a"] * 5, GONE, (64, 64), vae) == 2 and vae.device.type == "cuda"
    assert smaller(["a"], GONE, (64, 64), vae) == 1 and vae.device.type == "cpu"

    class Full(Model):
        def __init__(self) -> None:
            self.vae: Any = Away()

        def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if self.vae.device.type == "cuda":
                raise GONE
            return pixels + 1, pixels

    mean, std = LatentCache(Store(None), Full(), "")._distribution(torch.zeros(1, 3, 64, 96))
    assert torch.equal(mean, std + 1) and "while a picture of 96x64 was encoded; the processor encodes it" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["sample", "grid"])
def test_a_command_ends_in_one_line(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    from tests.train.adapters.bases import LoRANetwork
    from train.export import save_lora

    network = LoRANetwork(load_model(str(tiny_base)).targets(), 4, 2.0, torch.Generator())
    network.remove()
    save_lora(tmp_path / "a.safetensors", network.state(), {"ss_v2": "False"}, "fp32")
    base = ["--base", str(tiny_base), "--out", str(tmp_path / "a.png"), "--steps", "1"]
    words = [command, str(tmp_path / "a.safetensors"), *base, "--prompt" if command == "sample" else "--prompts", "tok"]
    for place, told in (
        ("train.families.sd.Model.denoise", "while a picture of 64x64 was drawn"),
        ("train.families.sd.Model.to", "was moved to the GPU"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, Short(None, 99))
            result = CliRunner().invoke(main, words)
        assert result.exit_code == 1 and result.output.count("\n") == 1 and told in result.output


def test_even_where_nobody_foresaw_it(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.tools.sample._save", Short(None, 9))
    result = CliRunner().invoke(main, ["sample", "--base", str(tiny_base), "--prompt", "tok", "--out", str(tmp_path)])
    assert result.exit_code == 1 and result.output.startswith("Error: out of memory; close") and result.output.count("\n") == 1
