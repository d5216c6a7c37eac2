"""The CLIP tokenizer equals transformers' and what sd-scripts feeds the text encoder."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep import clip_bpe
from prep.options import UserError

SAMPLE = (
    "1girl, solo, long hair, looking at viewer, blush, smile, open mouth, bangs, blue eyes, skirt, brown hair, shirt, hair ornament, bow, "
    "school uniform, hair between eyes, ribbon, jewelry, collarbone, white shirt, :d, hair bow, necktie, pleated skirt, sidelocks, plaid, vest"
)
CASES = json.loads(gzip.decompress((Path(__file__).parent / "data" / "chunks.json.gz").read_bytes()))["cases"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' CLIPTokenizer, loaded from the folder that we write."""
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    clip_bpe.write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder, model_max_length=10_000)


def ids_of(reference: Any, text: str) -> list[int]:
    return reference(text, add_special_tokens=False).input_ids


def test_the_vocabulary_is_clips() -> None:
    words = clip_bpe.vocabulary()
    assert len(words) == len(set(words.values())) == clip_bpe.VOCAB_SIZE
    assert (words["<|startoftext|>"], words["<|endoftext|>"], words["!"]) == (clip_bpe.BOS, clip_bpe.EOS, 0)
    short = [token[:-4] for token in words if token.endswith("</w>") and token[:-4].isascii() and token[:-4].isalpha() and token.islower()]
    assert sum(len(word) <= 4 for word in short) == 9_248
    assert len(clip_bpe.merges()) == 48_894


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1girl", 2), ("long_hair", 3), ("long hair", 2), ("sks", 1), ("SKS", 1), ("zwx", 2), ("skadi_(arknights)", 6),
        (r"skadi \(arknights\)", 8), ("^_^", 1), (">_<", 2), ("hatsune miku", 3), ("photo of a man", 4), ("", 0), ("  \n ", 0),
    ],
)  # fmt: skip
def test_known_lengths(text: str, tokens: int) -> None:
    assert clip_bpe.count(text) == tokens


def test_known_ids() -> None:
    assert clip_bpe.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert [clip_bpe.encode(word) for word in ("sks", "ohwx", "girl", "solo", ",", "_")] == [[48136], [47993], [1611], [5797], [267], [318]]


def test_a_folder_that_transformers_loads(reference: Any, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    assert len(reference) == clip_bpe.VOCAB_SIZE
    assert reference("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert reference.pad_token_id == clip_bpe.EOS
    clip_bpe.write_tokenizer(tmp_path, pad_token="!")
    assert CLIPTokenizer.from_pretrained(tmp_path).pad_token_id == 0
    assert not list(tmp_path.glob(".tmp-*"))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_text_has_transformers_ids(reference: Any, text: str) -> None:
    assert clip_bpe.encode(text) == ids_of(reference, text)


def test_5000_random_captions_have_transformers_ids(reference: Any) -> None:
    rng = random.Random(1)
    pool = "abcdefghijklmnop  ,,_'0123456789()\\:!?éßÄ日本語😀\t\n…—’&<>|"
    pieces = [token.replace("</w>", " ") for token in clip_bpe.vocabulary()]
    for _ in range(5_000):
        text = "".join(rng.choice(pool) if rng.random() < 0.5 else rng.choice(pieces) for _ in range(rng.randint(0, 25)))
        assert clip_bpe.encode(text) == ids_of(reference, text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['pad']}-{case['max_token_length']}-{len(case['caption'])}")
def test_chunks_are_those_of_sd_scripts(case: dict[str, Any]) -> None:
    assert clip_bpe.chunks(case["caption"], case["max_token_length"], case["pad"]) == case["input_ids"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["long hair", "1girl", "smile", "!", "^_^", "tk"]), max_size=150),
    st.sampled_from(clip_bpe.LENGTHS),
    st.sampled_from([0, 49407]),
)
def test_chunks_hold_the_tokens_in_order(tags: list[str], length: int, pad_id: int) -> None:
    text = ", ".join(tags)
    rows = clip_bpe.chunks(text, length, pad_id)
    assert len(rows) == length // 75 and all(len(row) == 77 and row[0] == clip_bpe.BOS for row in rows)
    inner = [token for row in rows for token in row[1 : row.index(clip_bpe.EOS)]]
    assert inner == clip_bpe.encode(text)[:length]
    assert all(set(row[row.index(clip_bpe.EOS) + 1 :]) <= {pad_id} for row in rows)


@pytest.mark.parametrize(("tokens", "full"), [(74, 0), (75, 1), (76, 1), (149, 1), (150, 2), (151, 2), (225, 3), (226, 3)])
def test_chunk_borders(tokens: int, full: int) -> None:
    rows = clip_bpe.chunks(" ".join(["cat"] * tokens), 225, 0)
    assert sum(row[76] == clip_bpe.EOS for row in rows) == full


def test_another_length_is_refused() -> None:
    with pytest.raises(UserError, match="75, 150 or 225"):
        clip_bpe.chunks("cat", 100)


def test_underscores_cost_tokens() -> None:
    assert clip_bpe.count(SAMPLE.replace(" ", "_").replace(",_", ", ")) > clip_bpe.count(SAMPLE)
