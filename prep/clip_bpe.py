"""The CLIP tokenizer: ids and counts of captions as the trainers see them, rebuilt from OpenAI's merges without torch."""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from prep.options import UserError, atomic_write

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BOS = 49406  # <|startoftext|>
EOS = 49407  # <|endoftext|>
VOCAB_SIZE = 49408
CHUNK = 75  # usable tokens of one pass through the text encoder: 77 less BOS and EOS
LENGTHS = (75, 150, 225)  # what max_token_length may be

_BOS_TEXT, _EOS_TEXT, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
# How CLIP cuts a caption into words before merging: contractions, runs of letters, single digits, runs of other signs.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@lru_cache(maxsize=1)
def _merge_lines() -> tuple[str, ...]:
    packed = resources.files("prep").joinpath("data", "clip_merges.txt.gz").read_bytes()
    return tuple(gzip.decompress(packed).decode("utf-8").splitlines())


def merges() -> list[str]:
    """Return the 48,894 merges, "left right", in the order they are applied (github.com/openai/CLIP)."""
    return list(_merge_lines())


@lru_cache(maxsize=1)
def _vocabulary() -> dict[str, int]:
    # The 256 bytes in OpenAI's order: the printable ones stand for themselves, the rest follow from U+0100 up.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    joined = ["".join(line.split(" ")) for line in _merge_lines()]
    tokens = [*alphabet, *(char + _WORD_END for char in alphabet), *joined, _BOS_TEXT, _EOS_TEXT]
    return {token: number for number, token in enumerate(tokens)}


def vocabulary() -> dict[str, int]:
    """Return token -> id for all 49,408 tokens; a token that ends a word carries "</w>"."""
    return dict(_vocabulary())


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    """Build the byte-level BPE with CLIP's normaliser and word cutter (0.1 s, once)."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    pairs = [(left, right) for left, _, right in (line.partition(" ") for line in _merge_lines())]
    model = models.BPE(
        vocab=_vocabulary(), merges=pairs, unk_token=_EOS_TEXT, continuing_subword_prefix="", end_of_word_suffix=_WORD_END, fuse_unk=False
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (_BOS_TEXT, _EOS_TEXT)])
    return tokenizer


def encode(text: str) -> list[int]:
    """Return the token ids of a text without BOS and EOS, as transformers' CLIPTokenizer gives them."""
    return _tokenizer().encode(text, add_special_tokens=False).ids


def count(text: str) -> int:
    """Return how many of the 75, 150 or 225 usable tokens a caption takes."""
    return len(encode(text))


def chunks(text: str, max_token_length: int = CHUNK, pad_id: int = EOS) -> list[list[int]]:
    """Cut a caption into the rows of 77 ids that the text encoder reads one by one (what sd-scripts feeds it).

    Each row is BOS, up to 75 tokens, EOS, padding (SD 1.x and SDXL's first encoder pad with EOS, SD 2.x and SDXL's second with 0).
    There are always max_token_length / 75 rows; tokens beyond are cut off.
    """
    if max_token_length not in LENGTHS:
        raise UserError(f"max_token_length is {max_token_length}; it must be 75, 150 or 225")
    ids = encode(text)
    rows = []
    for start in range(0, max_token_length, CHUNK):
        part = [BOS, *ids[start : start + CHUNK], EOS]
        rows.append(part + [pad_id] * (CHUNK + 2 - len(part)))
    return rows


def write_tokenizer(folder: Path, pad_token: str = _EOS_TEXT) -> None:
    """Write the files from which CLIPTokenizer.from_pretrained(folder) loads, in the layout that transformers 4 and 5 both read."""
    special = {"bos_token": _BOS_TEXT, "eos_token": _EOS_TEXT, "unk_token": _EOS_TEXT, "pad_token": pad_token}
    habits = {"do_lower_case": True, "add_prefix_space": False, "errors": "replace"}
    config = {**special, **habits, "tokenizer_class": "CLIPTokenizer", "model_max_length": CHUNK + 2}
    files = {
        "vocab.json": json.dumps(_vocabulary(), ensure_ascii=False, separators=(",", ":")),
        "merges.txt": "\n".join(("#version: 0.2", *_merge_lines())),
        "tokenizer_config.json": json.dumps(config, indent=2),
        "special_tokens_map.json": json.dumps(special, indent=2),
    }
    for name, text in files.items():
        atomic_write(folder / name, text + "\n")
