"""Batches: what an epoch holds, that chance is reproducible and resumable, and that sizes and kinds are kept in order."""

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.captions import parse
from prep.options import UserError
from prep.tree import Folder
from train.buckets import Fit
from train.config import DataConfig, TrainConfig
from train.dataset import Batch, Picture, SamplePlan, TrainingSet, apportion, take_turns, vary_caption
from train.families import load_model
from train.families.sd import Model

counts = st.integers(0, 12)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


def configured(tree: Path, **train: Any) -> TrainConfig:
    buckets = {"resolution": 96, "bucket_reso_steps": 16, "min_bucket_reso": 64}
    settings = {"base": "pocket", "tree": str(tree), "train_batch_size": 2, **buckets, **train}
    return TrainConfig.load({"train": settings}, {})


def same(a: Batch, b: Batch) -> bool:
    tensors = ("latent_mean", "latent_std", "input_ids", "weight")
    return a.captions == b.captions and a.pictures == b.pictures and all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)


def test_epoch_is_a_pure_function_and_can_start_anywhere(model: Model, tiny_tree: Path) -> None:
    config = configured(tiny_tree, flip_aug=True, caption_dropout_rate=0.3)
    whole, again = (TrainingSet.load(config, model) for _ in range(2))
    for epoch in (0, 3):
        batches = list(whole.batches(epoch))
        assert len(batches) == whole.batches_per_epoch
        for start in range(len(batches) + 1):
            rest = list(again.batches(epoch, start))
            assert len(rest) == len(batches) - start
            assert all(map(same, rest, batches[start:]))


def test_epochs_and_seeds_differ(model: Model, tiny_tree: Path) -> None:
    data = TrainingSet.load(configured(tiny_tree), model)
    other = TrainingSet.load(configured(tiny_tree, seed=7), model)
    captions = [[batch.captions for batch in source.batches(epoch)] for source, epoch in ((data, 0), (data, 1), (other, 0))]
    assert captions[0] != captions[1] and captions[0] != captions[2]


def test_batches_hold_one_size_with_latents_to_match(model: Model, tiny_tree: Path) -> None:
    data = TrainingSet.load(configured(tiny_tree), model)
    sizes = set()
    for batch in data.batches(0):
        size = batch.latent_mean.shape
        sizes.add(size[2:])
        assert size[1] == 4 and batch.latent_std.shape == size and len(batch.captions) == size[0] == len(batch.weight)
        assert batch.input_ids.shape == (size[0], 1, 77)
        assert len({path.stem == "2" for path in batch.pictures}) == 1  # the wide ones
    assert len(sizes) == 2


def test_every_picture_comes_as_often_as_its_folder_says(model: Model, tiny_tree: Path) -> None:
    data = TrainingSet.load(configured(tiny_tree, num_epochs=2), model)
    for epoch in range(2):
        seen = Counter(path for batch in data.batches(epoch) for path in batch.pictures)
        train = {path: n for path, n in seen.items() if "img" in path.parts}
        assert len(train) == 3 and set(train.values()) == {2}
        assert sum(seen.values()) - sum(train.values()) == 6


def test_weights_are_the_prior_loss_weight_scaled_in_short_batches(model: Model, tiny_tree: Path) -> None:
    data = TrainingSet.load(configured(tiny_tree, prior_loss_weight=0.25, train_batch_size=3), model)
    lengths = set()
    for batch in data.batches(0):
        lengths.add(len(batch.captions))
        share = len(batch.captions) / 3
        wanted = [share * (0.25 if "reg" in path.parts else 1.0) for path in batch.pictures]
        assert batch.weight.tolist() == pytest.approx(wanted)
    assert lengths == {3, 2, 1}  # 8 square and 4 wide samples


def test_without_regularization_pictures_all_weigh_one(model: Model, tiny_tree: Path) -> None:
    for path in (tiny_tree / "reg" / "1_cls").iterdir():
        path.unlink()
    data = TrainingSet.load(configured(tiny_tree, train_batch_size=1), model)
    assert data.batches_per_epoch == 6
    assert {weight for batch in data.batches(0) for weight in batch.weight.tolist()} == {1.0}


def picture(number: int, size: tuple[int, int], is_reg: bool, repeats: int = 1) -> Picture:
    folder = Folder(Path("reg" if is_reg else "img"), repeats, "x", is_reg, ())
    return Picture(folder.path / str(number), str(number), Fit(size, size, 0.0), "x", folder)


@given(counts.filter(bool), counts, counts, counts, st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_plan_of_any_tree(square: int, wide: int, reg_square: int, reg_wide: int, batch_size: int, repeats: int, seed: int) -> None:
    small, large = (64, 64), (96, 48)
    kinds = [(small, False)] * square + [(large, False)] * wide + [(small, True)] * reg_square + [(large, True)] * reg_wide
    pictures = [picture(i, size, is_reg, 1 if is_reg else repeats) for i, (size, is_reg) in enumerate(kinds)]
    config = configured(Path("tree"), train_batch_size=batch_size, seed=seed)
    plan = SamplePlan.make(pictures, config)
    wanted = repeats * (square + wide)
    for epoch in range(3):
        batches = plan.batches(epoch)
        assert len(batches) == plan.batches_per_epoch
        assert all(len({pictures[i].bucket for i in batch}) == 1 and len(batch) <= batch_size for batch in batches)
        seen = Counter(i for batch in batches for i in batch)
        assert all(seen[i] == repeats for i, (_, is_reg) in enumerate(kinds) if not is_reg)
        reg = {i: seen[i] for i, (_, is_reg) in enumerate(kinds) if is_reg}
        assert sum(reg.values()) == (wanted if reg else 0)
        assert set(seen) <= set(plan.used(epoch + 1))


def test_regularization_pictures_are_used_evenly() -> None:
    pictures = [picture(i, (64, 64), False, 2) for i in range(5)] + [picture(i, (64, 64), True) for i in range(30)]
    plan = SamplePlan.make(pictures, configured(Path("tree"), train_batch_size=4))
    seen = Counter(i for epoch in range(6) for batch in plan.batches(epoch) for i in batch if i >= 5)
    assert len(seen) == 30 and set(seen.values()) == {2}
    assert len(plan.used(1)) == 5 + 10


def test_kinds_take_turns_in_every_batch() -> None:
    pictures = [picture(i, (64, 64), False) for i in range(8)] + [picture(i, (64, 64), True) for i in range(8)]
    for batch in SamplePlan.make(pictures, configured(Path("tree"), train_batch_size=4)).batches(0):
        assert [pictures[i].folder.is_reg for i in batch] == [False, True, False, True]
    singles = SamplePlan.make(pictures, configured(Path("tree"), train_batch_size=1)).batches(0)
    assert [pictures[i].folder.is_reg for (i,) in singles] == [False, True] * 8


@given(st.lists(st.integers(), max_size=30), st.lists(st.integers(), max_size=30))
def test_taking_turns_loses_nothing_and_keeps_both_orders(first: list[int], second: list[int]) -> None:
    evens, odds = [2 * n for n in first], [2 * n + 1 for n in second]
    merged = take_turns(evens, odds)
    assert [n for n in merged if n % 2 == 0] == evens and [n for n in merged if n % 2] == odds


@given(st.integers(0, 500), st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_shares_add_up_and_are_fair(total: int, sizes: list[int]) -> None:
    shares = apportion(total, {(64 * i, 64): size for i, size in enumerate(sizes)})
    assert sum(shares.values()) == total
    assert all(abs(share - total * size / sum(sizes)) < 1 for share, size in zip(shares.values(), sizes, strict=True))


@given(st.lists(st.text("abc xyz", min_size=1, max_size=8).filter(str.strip).map(str.strip), max_size=9), st.integers(0, 4), st.integers())
def test_shuffle_keeps_the_first_tags(tags: list[str], keep: int, seed: int) -> None:
    data = DataConfig(keep_tokens=keep)
    caption = ", ".join(tags)
    varied = parse(vary_caption(caption, data, random.Random(seed)))
    assert varied[:keep] == parse(caption)[:keep] and Counter(varied) == Counter(parse(caption))
    assert vary_caption(caption, dataclasses.replace(data, shuffle_caption=False), random.Random(seed)) == caption


def test_dropout_rate_is_kept() -> None:
    data, rng = DataConfig(caption_dropout_rate=0.3), random.Random(1)
    dropped = sum(vary_caption("tok, a", data, rng) == "" for _ in range(2000))
    assert 540 < dropped < 660
    assert vary_caption("tok", dataclasses.replace(data, caption_dropout_rate=1.0), rng) == ""


def test_caption_is_its_first_line_or_the_concept(model: Model, tiny_tree: Path) -> None:
    (tiny_tree / "img/2_tok/0.txt").write_text("tok, first\nsecond line\n", encoding="utf-8")
    (tiny_tree / "img/2_tok/1.txt").unlink()
    data = TrainingSet.load(configured(tiny_tree), model)
    captions = {picture.path.name: picture.caption for picture in data.pictures if not picture.folder.is_reg}
    assert (captions["0.png"], captions["1.png"]) == ("tok, first", "tok")


def test_summary_counts_what_is_trained(model: Model, tiny_tree: Path) -> None:
    summary = TrainingSet.load(configured(tiny_tree), model).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["pictures"], summary["train_samples"], summary["reg_pictures"], summary["reg_samples"]) == (3, 6, 3, 6)
    assert summary["dataset_dirs"] == {"2_tok": {"n_repeats": 2, "img_count": 3}}
    assert summary["reg_dataset_dirs"] == {"1_cls": {"n_repeats": 1, "img_count": 3}}
    assert summary["tag_frequency"]["2_tok"]["tok"] == 3 and "1_cls" not in summary["tag_frequency"]
    assert sum(bucket["count"] for bucket in summary["buckets"]) == 12 and len(summary["buckets"]) == 2


def test_surplus_regularization_pictures_are_not_encoded(model: Model, tiny_tree: Path) -> None:
    for i in range(20):
        (tiny_tree / f"reg/1_cls/more{i}.png").write_bytes((tiny_tree / "reg/1_cls/0.png").read_bytes())
    data = TrainingSet.load(configured(tiny_tree, num_epochs=1), model)
    assert data.summary()["reg_unused"] == 23 - 6
    assert len(data.latents) == 3 + 6


def test_faults_are_sentences(model: Model, tiny_tree: Path) -> None:
    with pytest.raises(UserError, match=r"resolution is 70.*multiples of 4"):
        TrainingSet.load(configured(tiny_tree, resolution=70), model)
    (tiny_tree / "img/2_tok/0.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"0\.png cannot be read"):
        TrainingSet.load(configured(tiny_tree), model)


def test_transparency_is_a_loss_mask_over_the_colours_beneath(model: Model, tiny_tree: Path) -> None:
    plain = TrainingSet.load(configured(tiny_tree, train_batch_size=3), model)
    assert all(batch.mask is None for batch in plain.batches(0))
    changed = sorted((tiny_tree / "img").rglob("*.png"))[0]
    image = Image.open(changed).convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, image.width // 2, image.height))
    image.putalpha(alpha)
    image.save(changed)
    masked = TrainingSet.load(configured(tiny_tree, train_batch_size=3), model)
    seen = 0
    for batch, before in zip(masked.batches(0), plain.batches(0), strict=True):
        assert torch.equal(batch.latent_mean, before.latent_mean), "the colours beneath are what is encoded"
        if changed in batch.pictures:
            assert batch.mask is not None and batch.mask.shape == (len(batch.pictures), 1, *batch.latent_mean.shape[2:])
            for path, mask in zip(batch.pictures, batch.mask, strict=True):
                assert mask.mean().item() == pytest.approx(0.5 if path == changed else 1.0, abs=0.02)
                seen += path == changed
        else:
            assert batch.mask is None
    assert seen
    ignored = TrainingSet.load(configured(tiny_tree, train_batch_size=3, alpha_mask=False), model)
    assert all(batch.mask is None for batch in ignored.batches(0))
    index = next(i for i, picture in enumerate(ignored.pictures) if picture.path == changed)
    assert not torch.equal(ignored.latents[index, False][0], masked.latents[index, False][0]), "else it lies on white"
