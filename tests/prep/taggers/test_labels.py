import json
from pathlib import Path

import pytest

from prep.options import UserError
from prep.taggers.labels import read_labels
from tests.prep.taggers.models import TAGS, write_csv, write_labels

NAMES = tuple(name for name, _, _ in TAGS)
CATEGORIES = tuple({0: "general", 4: "character", 9: "rating"}[category] for _, category, _ in TAGS)


@pytest.mark.parametrize("name", ["selected_tags.csv", "tag_mapping.json", "camie-tagger-v2-metadata.json"])
def test_every_form_gives_the_same_tags_and_categories(tmp_path: Path, name: str) -> None:
    write_labels(tmp_path / name)
    labels = read_labels(tmp_path / name)
    assert labels.names == NAMES and labels.categories == CATEGORIES


def test_plain_lines_are_general_tags_and_ratings(tmp_path: Path) -> None:
    (tmp_path / "tags.txt").write_text("\ufeff1girl\nsmile\nrating:safe\n\n", encoding="utf-8")
    labels = read_labels(tmp_path / "tags.txt")
    assert labels.names == ("1girl", "smile", "rating:safe") and labels.categories == ("general", "general", "rating")


def test_numbers_and_words_of_categories(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [("a", 0), ("b", 1), ("c", 3), ("d", 4), ("e", 5), ("f", 9), ("g", 10), ("h", 77)])
    assert read_labels(tmp_path / "a.csv").categories == ("general", "artist", "copyright", "character", "meta", "rating", "year", "other")
    rows = {str(i): {"tag": f"t{i}", "category": word} for i, word in enumerate(["Rating", "Quality", "Model", "Copyright", "Odd"])}
    (tmp_path / "tag_mapping.json").write_text(json.dumps(rows))
    assert read_labels(tmp_path / "tag_mapping.json").categories == ("rating", "quality", "model", "copyright", "other")


def test_places_are_numbers_not_the_order_of_the_file_and_gaps_are_filled(tmp_path: Path) -> None:
    rows = {"10": {"tag": "long hair", "category": "General"}, "2": {"tag": "^_^", "category": "General"}}
    (tmp_path / "tag_mapping.json").write_text(json.dumps(rows))
    labels = read_labels(tmp_path / "tag_mapping.json")
    assert len(labels.names) == 11 and labels.names[2] == "^_^" and labels.names[10] == "long_hair"
    assert labels.categories[0] == "other"


def test_odd_names_survive(tmp_path: Path) -> None:
    names = [":d", ";)", r"\m/", "don't", "a&b", 'say_"hi"', "!?", "||_||", "(o)_(o)"]
    write_csv(tmp_path / "selected_tags.csv", [(name, 0) for name in names])
    assert read_labels(tmp_path / "selected_tags.csv").names == tuple(names)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("selected_tags.csv", ""),
        ("selected_tags.csv", "a,b\n1,2\n"),
        ("selected_tags.csv", "tag_id,name,category,count\n"),
        ("selected_tags.csv", 'tag_id,name,category,count\n1,"a,b",0,3\n'),
        ("selected_tags.csv", "tag_id,name,category,count\n1,a,0,3\n2,a,0,3\n"),
        ("tag_mapping.json", "{"),
        ("tag_mapping.json", "[]"),
        ("tag_mapping.json", "{}"),
        ("tag_mapping.json", '{"0": {"tag": "a"}}'),
        ("tag_mapping.json", '{"a": {"tag": "a", "category": "General"}}'),
        ("metadata.json", '{"dataset_info": {"tag_mapping": {"idx_to_tag": {"0": "a"}}}}'),
        ("tags.txt", ""),
        ("tags.yaml", "a"),
    ],
)  # fmt: skip
def test_a_list_of_tags_that_is_none_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        read_labels(tmp_path / name)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "tags.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match=r"tags\.txt is no list of tags"):
        read_labels(tmp_path / "tags.txt")
