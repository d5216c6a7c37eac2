"""Captioners on small models with random weights, made here: the path through transformers is the real one, the words are noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.captioners import CAPTIONERS, CaptionerRow, captioner
from prep.captioners.vision_text import VisionText, plain
from prep.options import UserError, load_object

WORDS = ["a", "photo", "of", "girl", "boy", "red", "blue", "sky", "cat", "on", "the", "grass", "with", "long", "hair", "hat"]


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30 + seed, 3), dtype=np.uint8)) for seed in range(count)]


@pytest.fixture(scope="session")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a BLIP of two layers with a vocabulary of its own, in the files of a published one."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil, BlipProcessor

    folder = tmp_path_factory.mktemp("blip")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    vocabulary = {word: number for number, word in enumerate([*marks, *WORDS])}
    tokenizer = BertTokenizer(vocab=vocabulary, bos_token="[DEC]")
    small = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    special = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {"vocab_size": len(vocabulary), "encoder_hidden_size": 32, "max_position_embeddings": 64, **small, **special}
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config={"image_size": 32, "patch_size": 8, **small}, projection_dim=16, initializer_range=0.5)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a LLaVA of two layers, which is asked through a chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers import PreTrainedTokenizerFast as Fast

    folder = tmp_path_factory.mktemp("llava")
    marks = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "USER", "ASSISTANT", "describe", "it"]
    vocabulary = {word: number for number, word in enumerate([*marks, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = Fast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", additional_special_tokens=["<image>"])
    template = (
        "{% for message in messages %}USER {% for part in message['content'] %}{{ ' <image> ' if part['type'] == 'image' else part['text'] }}"
        "{% endfor %}{% endfor %} ASSISTANT "
    )
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.5}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=16, **size), image_token_id=4, vision_feature_layer=-1,
        text_config=LlamaConfig(vocab_size=len(vocabulary), bos_token_id=2, eos_token_id=3, **size),
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(images, tokenizer, patch_size=16, vision_feature_select_strategy="default", chat_template=template, image_token="<image>",
                   num_additional_image_tokens=1).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def small(blip: Path) -> VisionText:
    return VisionText(CaptionerRow("small", str(blip), max_new_tokens=8), "cpu")


def test_a_batch_says_what_single_pictures_say(small: VisionText) -> None:
    images = pictures(5)
    together = small.describe(images)
    assert together == [small.describe([image])[0] for image in images]
    assert all(len(found) == 1 and set(found[0].split()) <= set(WORDS) for found in together)


def test_more_sentences_vary_and_are_the_same_again(small: VisionText) -> None:
    images = pictures(3)
    first = small.describe(images, count=4, seed=1)
    assert first == small.describe(images, count=4, seed=1)
    assert first == [small.describe([image], count=4, seed=1)[0] for image in images]
    assert [found[0] for found in first] == [found[0] for found in small.describe(images)], "the first is the likeliest"
    assert first != small.describe(images, count=4, seed=2) and any(len(set(found)) > 1 for found in first)


def test_a_prompt_is_continued(blip: Path) -> None:
    asked = VisionText(CaptionerRow("small", str(blip), prompt="a photo of", max_new_tokens=4), "cpu").describe(pictures(2))
    assert all(found[0].startswith("a photo of ") and len(found[0].split()) > 3 for found in asked), asked


def test_a_chat_model_is_asked_and_its_answer_alone_is_kept(llava: Path) -> None:
    row = CaptionerRow("small", str(llava), prompt="describe it", chat=True, max_new_tokens=6)
    images = pictures(4)
    told = VisionText(row, "cpu").describe(images)
    assert told == [VisionText(row, "cpu").describe([image])[0] for image in images]
    for (answer,) in told:
        assert "USER describe it" not in answer and len(answer.split()) <= 6
    assert any(answer for (answer,) in told)


def test_every_row_names_a_class_and_a_model() -> None:
    for name, row in CAPTIONERS.items():
        assert load_object(row.kind) is VisionText and row.repo.count("/") == 1 and row.description, name
        assert row.prompt or not row.chat, f"{name} is asked nothing"


def test_a_name_that_is_nothing_and_a_folder_that_is_no_model_end_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a captioner nor"):
        captioner("blop")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="cannot load the captioner"):
        captioner(str(tmp_path), "cpu").describe(pictures(1), 1, 0)


def test_a_model_that_cannot_be_fetched_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot load the captioner Salesforce/blip-image-captioning-base"):
        captioner("blip", "cpu").describe(pictures(1), 1, 0)


@pytest.mark.parametrize(("said", "line"), [(' "A girl.\nShe smiles." ', "A girl. She smiles"), ("a cat", "a cat"), ("", ""), ("Dr. No.", "Dr. No")])
def test_an_answer_becomes_one_line(said: str, line: str) -> None:
    assert plain(said) == line
