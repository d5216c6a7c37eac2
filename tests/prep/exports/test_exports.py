"""Exports: every format says of the tree what the trainer it is for will read, in the keys that it knows."""

from __future__ import annotations

import json
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from prep.cli import main
from prep.exports import EXPORTS

# The keys that the formats' own sources know.
SD_SCRIPTS_DATASET = {
    "batch_size", "resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale", "subsets",
}  # fmt: skip
SD_SCRIPTS_SUBSET = {"image_dir", "num_repeats", "is_reg", "class_tokens", "alpha_mask", "caption_extension"}
SD_SCRIPTS_GENERAL = {"caption_extension", "shuffle_caption", "keep_tokens", "caption_dropout_rate", "flip_aug"}
DREAMBOOTH = {
    "instance_data_dir", "class_data_dir", "instance_prompt", "class_prompt", "save_sample_prompt", "save_sample_template", "instance_token",
    "class_token", "num_class_images_per", "class_negative_prompt", "class_guidance_scale", "class_infer_steps", "save_sample_negative_prompt",
    "n_save_sample", "sample_seed", "save_guidance_scale", "save_infer_steps",
}  # fmt: skip
ONETRAINER = {
    "__version", "name", "path", "seed", "enabled", "validation_concept", "include_subdirectories", "image_variations", "text_variations",
    "balancing", "balancing_strategy", "loss_weight", "image", "text",
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a built tree: three pictures in folders of 10 and 5 repeats, one of them masked, and two of the class."""
    (tmp_path / "dataset.toml").write_text(
        '[project]\nname = "mira"\nkeyword = "tk"\nclass = "1girl, solo"\n[train]\ntrain_batch_size = 4\nresolution = 64\n', encoding="utf-8"
    )
    for folder, names in (("img/10_tk 1girl, solo", "ab"), ("img/5_tk 1girl, solo", "c.d"), ("reg/1_1girl, solo", "xy")):
        for name in [names] if "." in names else names:
            path = tmp_path / "tree" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (80, 64), (10, 20, 30))
            image.paste((250, 200, 10), (50, 10, 70, 30))
            if name == "b":
                image.putalpha(Image.new("L", image.size, 128))
            image.save(path)
            path.with_suffix(".txt").write_text(f"{'' if 'reg' in folder else 'tk, '}1girl, {name}\n", encoding="utf-8")
    (tmp_path / "tree" / "manifest.json").write_text('{"keyword": "tk", "class": "1girl, solo", "files": {}}', encoding="utf-8")
    return tmp_path


def export(root: Path, kind: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["export", kind, str(root), *options])


def exported(root: Path, kind: str) -> Path:
    result = export(root, kind)
    assert result.exit_code == 0, result.output
    assert "5 pictures in 3 folders" in result.output.replace("\n", " ")
    return root / "export" / kind


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", EXPORTS)
def test_twice_is_the_same_and_the_tree_is_not_touched(project: Path, kind: str) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = contents(project / "tree")
    first = contents(exported(project, kind))
    assert contents(exported(project, kind)) == first and contents(project / "tree") == before


def test_a_folder_of_the_users_is_not_replaced(project: Path) -> None:
    (project / "mine").mkdir()
    (project / "mine" / "a.png").touch()
    result = export(project, "onetrainer", "--out", str(project / "mine"))
    assert result.exit_code == 1 and "no export wrote" in result.output and (project / "mine" / "a.png").exists()


def test_without_a_project_or_a_tree_there_is_one_sentence(tmp_path: Path) -> None:
    assert "works on a project" in export(tmp_path, "onetrainer").output
    (tmp_path / "dataset.toml").touch()
    assert "`prep build` makes it" in export(tmp_path, "onetrainer").output
    assert export(tmp_path, "nothing").exit_code == 2


def test_sd_scripts(project: Path) -> None:
    out = exported(project, "sd-scripts")
    config = tomllib.loads((out / "dataset.toml").read_text(encoding="utf-8"))
    (dataset,) = config["datasets"]
    assert set(config["general"]) <= SD_SCRIPTS_GENERAL and set(dataset) <= SD_SCRIPTS_DATASET
    assert config["general"]["keep_tokens"] == 1 and (dataset["batch_size"], dataset["resolution"]) == (4, 64)
    subsets = {Path(row["image_dir"]).name: row for row in dataset["subsets"]}
    assert all(set(row) <= SD_SCRIPTS_SUBSET for row in subsets.values())
    assert {name: (row["num_repeats"], row.get("is_reg", False), row.get("alpha_mask", False)) for name, row in subsets.items()} == {
        "10_tk 1girl, solo": (10, False, True),
        "5_tk 1girl, solo": (5, False, False),
        "1_1girl, solo": (1, True, False),
    }
    rows = read_json(out / "metadata.json")
    assert {Path(path).name: row["caption"] for path, row in rows.items()} == {f"{n}.png": f"tk, 1girl, {n}" for n in ("a", "b", "c.d")}
    assert all(Path(path).is_file() for path in rows)


def test_dreambooth_pictures_are_square_and_opaque(project: Path) -> None:
    out = exported(project, "dreambooth")
    concepts = read_json(out / "concepts_list.json")
    assert len(concepts) == 2 and all(set(concept) == DREAMBOOTH for concept in concepts)
    first = concepts[0]
    assert (first["instance_token"], first["class_token"], first["num_class_images_per"]) == ("tk", "1girl, solo", 1)
    assert len(list(Path(first["class_data_dir"]).glob("*.png"))) == 2
    pictures = [path for concept in concepts for path in Path(concept["instance_data_dir"]).glob("*.png")]
    assert len(pictures) == 3
    for path in pictures:
        image = Image.open(path)
        assert (image.size, image.mode) == ((64, 64), "RGB") and path.with_suffix(".txt").read_text(encoding="utf-8").startswith("tk, ")
        assert (250, 200, 10) in [colour for _, colour in image.getcolors(maxcolors=5000)], "the square is around what there is to see"


def test_onetrainer_has_masks_beside_the_pictures(project: Path) -> None:
    concepts = read_json(exported(project, "onetrainer") / "concepts.json")
    assert all(set(concept) == ONETRAINER for concept in concepts)
    assert [(concept["balancing"], concept["loss_weight"]) for concept in concepts] == [(10.0, 1.0), (5.0, 1.0), (1.0, 1.0)]
    masked = Path(concepts[0]["path"])
    assert sorted(path.name for path in masked.iterdir()) == ["a.png", "a.txt", "b-masklabel.png", "b.png", "b.txt"]
    assert Image.open(masked / "b-masklabel.png").getextrema() == (128, 128)
    assert Path(concepts[2]["path"]) == (project / "tree" / "reg" / "1_1girl, solo").resolve()


def test_ai_toolkit(project: Path) -> None:
    job = yaml.safe_load((exported(project, "ai-toolkit") / "mira.yaml").read_text(encoding="utf-8"))
    (process,) = job["config"]["process"]
    assert job["config"]["name"] == "mira" and process["type"] == "sd_trainer"
    rows = [(row["num_repeats"], row.get("is_reg", False), row["alpha_mask"], row["resolution"]) for row in process["datasets"]]
    assert rows == [(10, False, True, [64]), (5, False, False, [64]), (1, True, False, [64])]
    assert process["train"]["steps"] == (2 * 10 + 5 + 2) // 4 * 10 and process["network"]["linear"] == 16


def test_simpletuner_repeats_count_from_nothing(project: Path) -> None:
    rows = read_json(exported(project, "simpletuner") / "multidatabackend.json")
    images = [row for row in rows if row["dataset_type"] == "image"]
    assert [(row["repeats"], row.get("is_regularisation_data", False)) for row in images] == [(9, False), (4, False), (0, True)]
    assert len({row["id"] for row in rows}) == len(rows) and [row["default"] for row in rows if row["dataset_type"] == "text_embeds"] == [True]
    assert all(Path(row["instance_data_dir"]).is_dir() and row["caption_strategy"] == "textfile" for row in images)


def test_imagefolder(project: Path) -> None:
    train = exported(project, "imagefolder") / "train"
    rows = [json.loads(line) for line in (train / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 5 and all((train / row["file_name"]).is_file() for row in rows)
    assert {row["text"] for row in rows if not row["is_reg"]} == {"tk, 1girl, a", "tk, 1girl, b", "tk, 1girl, c.d"}


def test_webdataset_keys_hold_no_dots(project: Path) -> None:
    (shard,) = exported(project, "webdataset").glob("*.tar")
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard) as tar:
        for entry in tar:
            key, _, suffix = entry.name.partition(".")
            file = tar.extractfile(entry)
            assert file is not None
            samples.setdefault(key, {})[suffix] = file.read()
    assert len(samples) == 5 and all(set(sample) == {"png", "txt", "json"} for sample in samples.values())
    third = list(samples.values())[2]
    assert third["txt"] == b"tk, 1girl, c.d" and json.loads(third["json"])["name"] == "c.d.png"
    assert third["png"] == (project / "tree" / "img" / "5_tk 1girl, solo" / "c.d.png").read_bytes()
