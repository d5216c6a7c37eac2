"""Settings of a run: where they come from, and every fault at once."""

from pathlib import Path

import pytest

from prep.options import UserError, settings_of
from train.config import FREE, SECTIONS, TrainConfig, known_keys

PROJECT = {"base": "some/base", "keyword": "shs", "class": "1girl", "name": "mine"}


def faults(table: dict, project: dict | None = None) -> str:
    with pytest.raises(UserError) as error:
        TrainConfig.load({"project": project or {}, "train": table}, {})
    return str(error.value)


def test_the_project_says_it_once_and_train_may_say_it_better() -> None:
    config = TrainConfig.load({"project": {**PROJECT, "tree": "built"}, "train": {"keyword": "ohwx"}}, {"learning_rate": 1e-3})
    assert (config.model.base, config.data.keyword, config.data.class_, config.output.output_name) == ("some/base", "ohwx", "1girl", "mine")
    assert (config.data.tree, config.optimizer.learning_rate) == (Path("built"), 1e-3)


def test_an_empty_file_is_a_whole_configuration() -> None:
    config = TrainConfig.load({}, {})
    assert (config.model.base, config.output.output_name, config.data.resolution) == ("pocket", "lora", None)


def test_the_keyword_names_the_file_when_nothing_else_does() -> None:
    assert TrainConfig.load({"project": {"keyword": "shs", "name": ""}}, {}).output.output_name == "shs"


def test_all_faults_come_at_once() -> None:
    text = faults({"network_dim": 0, "lr_scheduler": "cosin", "learning_rte": 1e-4, "max_token_length": 100, "shuffle_caption": 1})
    assert all(word in text for word in ("network_dim", "lr_scheduler", "max_token_length", "shuffle_caption", "did you mean learning_rate?"))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"train_unet": False, "train_text_encoder": False}, "train_text_encoder"),
        ({"min_bucket_reso": 1024, "max_bucket_reso": 512}, "max_bucket_reso"),
        ({"bucket_reso_steps": 12}, "multiple of 8"),
        ({"output_name": "../x"}, "plain file name"),
        ({"caption_dropout_rate": 1.5}, "caption_dropout_rate"),
        ({"seed": True}, "seed"),
    ],
)
def test_impossible_settings_are_refused(table: dict, words: str) -> None:
    assert words in faults(table)


def test_a_table_must_be_a_table() -> None:
    with pytest.raises(UserError, match=r"\[train\]"):
        TrainConfig.load({"train": 3}, {})


def test_field_names_are_unique_and_flat_lists_them_all() -> None:
    keys = known_keys()
    assert len(keys) == len(set(keys))
    assert set(TrainConfig().flat()) == set(keys)
    assert set(keys) >= FREE


def test_every_setting_has_a_help_sentence() -> None:
    for section in SECTIONS.values():
        for setting in settings_of(section):
            assert setting.meta["help"].endswith("."), setting.key


def test_paths_are_found_from_the_project(tmp_path: Path) -> None:
    (tmp_path / "models" / "base").mkdir(parents=True)
    config = TrainConfig.load({"project": {"base": "models/base"}}, {}).at(tmp_path)
    assert config.model.base == str(tmp_path / "models" / "base")
    assert config.data.tree == tmp_path / "tree"
    assert config.output.file("-state.pt") == tmp_path / "lora" / "lora-state.pt"
    assert TrainConfig.load({"project": {"base": "owner/name"}}, {}).at(tmp_path).model.base == "owner/name"
    assert TrainConfig().at(tmp_path).model.base == "", "an empty base is no folder"
