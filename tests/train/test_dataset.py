"""Batches: what an epoch holds, that chance is reproducible and resumable, and that sizes and kinds are kept in order."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from prep.options import UserError
from train.config import DataConfig, TrainConfig
from train.dataset import Batch, TrainingSet
from train.families import load_model
from train.families.sd import Model
from train.subsets import read_subsets


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


def test_faults_are_sentences(model: Model, tiny_tree: Path) -> None:
    with pytest.raises(UserError, match=r"resolution is 70.*multiples of 4"):
        TrainingSet.load(configured(tiny_tree, resolution=70), model)
    (tiny_tree / "img/2_tok/0.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"0\.png cannot be read"):
        TrainingSet.load(configured(tiny_tree), model)


def test_surplus_regularization_pictures_are_not_encoded(model: Model, tiny_tree: Path) -> None:
    for i in range(20):
        Image.radial_gradient("L").resize((96, 96)).rotate(i + 1).convert("RGB").save(tiny_tree / f"reg/1_cls/more{i}.png")
    data = TrainingSet.load(configured(tiny_tree, num_epochs=1), model)
    assert data.summary()["reg_unused"] == 23 - 6
    assert data.latents.store.made == 3 + 6
    assert data.notes() == [
        "6 of your 23 regularization pictures will be used, 6 in an epoch and others in the next; more epochs would use more",
        "encoded 9 of 9 pictures, the rest was there",
    ]


def masked_out(path: Path) -> None:
    """Make the left half of a picture transparent, and leave its colours."""
    image = Image.open(path).convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, image.width // 2, image.height))
    image.putalpha(alpha)
    image.save(path)


def test_transparency_is_a_loss_mask_over_the_colours_beneath(model: Model, tiny_tree: Path) -> None:
    plain = list(TrainingSet.load(configured(tiny_tree, train_batch_size=3), model).batches(0))
    assert all(batch.mask is None for batch in plain)
    changed = sorted((tiny_tree / "img").rglob("*.png"))[0]
    masked_out(changed)
    seen = 0
    for batch, before in zip(TrainingSet.load(configured(tiny_tree, train_batch_size=3), model).batches(0), plain, strict=True):
        assert torch.equal(batch.latent_mean, before.latent_mean), "the colours beneath are what is encoded"
        if changed in batch.pictures:
            assert batch.mask is not None and batch.mask.shape == (len(batch.pictures), 1, *batch.latent_mean.shape[2:])
            for path, mask in zip(batch.pictures, batch.mask, strict=True):
                assert mask.mean().item() == pytest.approx(0.5 if path == changed else 1.0, abs=0.02)
                seen += path == changed
        else:
            assert batch.mask is None
    assert seen
    ignored = list(TrainingSet.load(configured(tiny_tree, train_batch_size=3, alpha_mask=False), model).batches(0))
    assert all(batch.mask is None for batch in ignored)
    assert any(not torch.equal(a.latent_mean, b.latent_mean) for a, b in zip(ignored, plain, strict=True)), "else it lies on white"


def with_subset(config: TrainConfig, **table: Any) -> TrainConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, subsets=read_subsets([table], DataConfig)))


def test_a_subset_has_its_own_repeats_captions_and_views(model: Model, tiny_tree: Path) -> None:
    own = {"num_repeats": 1, "caption_prefix": "painting of", "shuffle_caption": False, "flip_aug": True}
    config = with_subset(configured(tiny_tree, train_batch_size=1), image_dir="img/2_tok", **own)
    data = TrainingSet.load(config, model)
    captions = {batch.captions[0] for batch in data.batches(0) if "img" in batch.pictures[0].parts}
    assert captions == {
        "painting of tok, smile, red hair, hat, standing",
        "painting of tok, smile, blue hair, sitting",
        "painting of tok, frown, outdoors, tree, night",
    }
    assert data.summary()["dataset_dirs"] == {"2_tok": {"n_repeats": 1, "img_count": 3}}
    assert data.batches_per_epoch == 3 + 3
    assert len(data.latents.store.used) == 3 * 2 + 3, "the class is not mirrored"
    assert not any(batch.captions[0].startswith("painting") for batch in data.batches(0) if "reg" in batch.pictures[0].parts)


def test_views_are_drawn_from_what_was_encoded(model: Model, tiny_tree: Path) -> None:
    for path in tiny_tree.rglob("2.png"):
        Image.open(path).resize((190, 80)).save(path)
    config = configured(tiny_tree, train_batch_size=1, random_crop=True, color_aug=True, flip_aug=True, augment_variants=3, num_epochs=1)
    data = TrainingSet.load(config, model)
    made, seen = data.latents.store.made, set()
    assert made == 6 * 3 * 2
    for epoch in range(6):
        for batch in data.batches(epoch):
            seen.add(
                (batch.pictures[0].parent.name, batch.pictures[0].name, tuple(batch.sizes[0].tolist()), round(batch.latent_mean.sum().item(), 3))
            )
    assert data.latents.store.made == made
    assert len(seen) > 12
    wide = {size for _, name, size, _ in seen if name == "2.png"}
    assert len({size[3] for size in wide}) > 2, "what is cut off is said to the UNet"


@pytest.mark.parametrize("on_disk", [True, False])
def test_on_disk_and_in_memory_give_the_same_batches(model: Model, tiny_tree: Path, on_disk: bool) -> None:
    first = TrainingSet.load(configured(tiny_tree), model)
    other = TrainingSet.load(configured(tiny_tree, cache_latents_to_disk=on_disk), model)
    other.latents.store.resident = 0
    assert all(map(same, first.batches(0), other.batches(0)))
    assert other.latents.store.made == (0 if on_disk else 6)


def test_without_a_disk_cache_nothing_is_written(model: Model, tiny_tree: Path) -> None:
    list(TrainingSet.load(configured(tiny_tree, cache_latents_to_disk=False), model).batches(0))
    assert not (tiny_tree.parent / ".atelier").exists()


def test_old_caches_are_pruned_and_that_is_said(model: Model, tiny_tree: Path) -> None:
    TrainingSet.load(configured(tiny_tree), model)
    other = TrainingSet.load(configured(tiny_tree, flip_aug=True, cache_max=1e-9), model)
    assert other.pruned[0] == 0, "all of them are in use"
    for path in (tiny_tree / "reg/1_cls").glob("*.png"):
        path.unlink()
    last = TrainingSet.load(configured(tiny_tree, cache_max=1e-9), model)
    assert last.pruned[0] == 12 - 3
    assert any("9 encoded files that were not used for long are deleted" in line for line in last.notes())
    assert len(list((tiny_tree.parent / ".atelier/latents").rglob("*.safetensors"))) == 3


def test_wildcards_use_all_lines(model: Model, tiny_tree: Path) -> None:
    (tiny_tree / "img/2_tok/0.txt").write_text("tok, {red|blue} hat\n\ntok, shoe\n", encoding="utf-8")
    data = TrainingSet.load(configured(tiny_tree, enable_wildcard=True, train_batch_size=1), model)
    said = {batch.captions[0] for epoch in range(12) for batch in data.batches(epoch) if batch.pictures[0].name == "0.png"}
    assert {"tok, red hat", "tok, blue hat", "tok, shoe"} <= said


def test_captions_warm_up_over_the_run(model: Model, tiny_tree: Path) -> None:
    data = TrainingSet.load(configured(tiny_tree, token_warmup_step=1.0 - 1e-9, token_warmup_min=0, num_epochs=4), model)
    tags = [sum(caption.count(",") for batch in data.batches(epoch) for caption in batch.captions) for epoch in range(4)]
    assert tags[0] < tags[3] and tags == sorted(tags)


def test_weights_reach_the_batch(model: Model, tiny_tree: Path) -> None:
    (tiny_tree / "img/2_tok/0.txt").write_text("tok, (smile:1.5)", encoding="utf-8")
    data = TrainingSet.load(configured(tiny_tree, weighted_captions=True, shuffle_caption=False), model)
    for batch in data.batches(0):
        mine = [path.name == "0.png" and "img" in path.parts for path in batch.pictures]
        assert (batch.token_weights is not None) == any(mine)
        if batch.token_weights is not None:
            assert [row.max().item() for row in batch.token_weights[:, 0]] == [1.5 if it else 1.0 for it in mine]
