from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from prep.imports import Asked
from prep.imports.parameters import decoded, prompt_tags, read

PROMPT = "masterpiece, (1girl:1.2), ((long hair)), [smile], hat \\(blue\\), <lora:thing:0.8>, a BREAK b\nNegative prompt: bad, worse\nSteps: 20"
TAGS = ["masterpiece", "1girl", "long hair", "smile", "hat (blue)", "a", "b"]


def test_a_prompt_loses_networks_weights_and_what_is_not_wanted() -> None:
    assert prompt_tags(PROMPT) == TAGS
    assert prompt_tags("a girl\nSteps: 20, Sampler: Euler") == ["a girl"]
    assert prompt_tags("(a, b:1.3), [c:0.5], {d}") == ["a", "b", "c", "d"]
    assert prompt_tags("") == [] and prompt_tags("\nNegative prompt: x") == []


@given(st.lists(st.text("abc ", min_size=1).map(str.strip).filter(bool), unique=True), st.floats(0.1, 2))
def test_weights_do_not_matter(tags: list[str], weight: float) -> None:
    tags = list(dict.fromkeys(" ".join(tag.split()) for tag in tags))
    assert prompt_tags(", ".join(f"({tag}:{weight:.2f})" for tag in tags)) == prompt_tags(", ".join(tags)) == tags


def test_a_png_holds_it_as_text(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", PROMPT)
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=info)
    found = read(tmp_path / "x.png", Asked())
    assert found and found.tags == {"general": [tag.replace(" ", "_") for tag in TAGS]}
    info = PngInfo()
    info.add_text("Software", "NovelAI")
    info.add_text("Description", "{1girl}, smile")
    Image.new("RGB", (4, 4)).save(tmp_path / "n.png", pnginfo=info)
    found = read(tmp_path / "n.png", Asked())
    assert found and found.tags == {"general": ["1girl", "smile"]}


@pytest.mark.parametrize(
    "comment", [b"UNICODE\0" + PROMPT.encode("utf-16-be"), b"UNICODE\0" + PROMPT.encode("utf-16-le"), b"ASCII\0\0\0" + PROMPT.encode()]
)
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_jpeg_holds_it_in_exif(tmp_path: Path, comment: bytes, suffix: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    Image.new("RGB", (4, 4)).save(tmp_path / f"x.{suffix}", exif=exif)
    found = read(tmp_path / f"x.{suffix}", Asked())
    assert found and found.tags["general"] == [tag.replace(" ", "_") for tag in TAGS]


def test_a_photograph_and_a_broken_file_say_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0made by a camera"
    Image.new("RGB", (4, 4)).save(tmp_path / "x.jpg", exif=exif)
    (tmp_path / "y.png").write_bytes(b"nothing")
    Image.new("RGB", (4, 4)).save(tmp_path / "z.png")
    assert [read(tmp_path / name, Asked()) for name in ("x.jpg", "y.png", "z.png", "none.png")] == [None] * 4
    assert decoded(b"short") == "short"
