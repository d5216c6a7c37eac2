import json
from pathlib import Path
from typing import Any

import pytest

from prep.imports import Asked
from prep.imports.kohya import read as read_kohya
from prep.imports.posts import read_danbooru, read_gallery_dl, tags_of
from prep.options import UserError

DANBOORU = {
    "id": 1, "rating": "s", "tag_string": "1girl hatsune_miku someone highres vocaloid", "tag_string_general": "1girl long_hair",
    "tag_string_character": "hatsune_miku_(append)", "tag_string_copyright": "vocaloid", "tag_string_artist": "someone", "tag_string_meta": "highres",
}  # fmt: skip
SORTED = {
    "general": ["1girl", "long_hair"], "character": ["hatsune_miku_(append)"], "copyright": ["vocaloid"], "artist": ["someone"], "meta": ["highres"],
}  # fmt: skip


def put(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["x.json", "x.png.json"])
@pytest.mark.parametrize("wrap", [False, True])
def test_a_post_of_danbooru(tmp_path: Path, name: str, wrap: bool) -> None:
    put(tmp_path / name, [DANBOORU] if wrap else DANBOORU)
    found = read_danbooru(tmp_path / "x.png", Asked())
    assert found and found.tags == SORTED | {"rating": ["sensitive"]}
    assert read_danbooru(tmp_path / "y.png", Asked()) is None


@pytest.mark.parametrize(
    ("post", "tags"),
    [
        ({"category": "gelbooru", "tags_general": "1girl long_hair", "tags_artist": "someone", "tags": "1girl long_hair someone", "rating": "s"},
         {"general": ["1girl", "long_hair"], "artist": ["someone"], "rating": ["general"]}),
        ({"category": "danbooru", "tags_general": ["1girl"], "tags_character": ["a b"], "rating": "explicit"},
         {"general": ["1girl"], "character": ["a_b"], "rating": ["explicit"]}),
        ({"category": "pixiv", "tags": ["女の子", "original"]}, {"general": ["女の子", "original"]}),
        ({"tags": [{"name": "long hair"}, {"name": "cat, dog"}, 3]}, {"general": ["long_hair", "cat_dog"]}),
        ({"tags": "long hair, smile"}, {"general": ["long_hair", "smile"]}),
        ({"tags_metadata": ["highres"], "tags_species": "cat", "tags_circle": "x"}, {"meta": ["highres"], "general": ["cat"], "artist": ["x"]}),
    ],
)  # fmt: skip
def test_metadata_of_gallery_dl(tmp_path: Path, post: dict[str, Any], tags: dict[str, list[str]]) -> None:
    put(tmp_path / "x.jpg.json", post)
    found = read_gallery_dl(tmp_path / "x.jpg", Asked())
    assert found and found.tags == tags


def test_other_json_is_not_a_post_and_broken_json_is_a_sentence(tmp_path: Path) -> None:
    for data in ({"width": 3}, [1, 2], "tags", {"tags": None}, {"tags": []}, []):
        put(tmp_path / "x.json", data)
        assert read_danbooru(tmp_path / "x.png", Asked()) is None and read_gallery_dl(tmp_path / "x.png", Asked()) is None
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is not JSON"):
        read_danbooru(tmp_path / "x.png", Asked())
    assert tags_of({}) == {"general": []}


@pytest.mark.parametrize("name", ["x", "x.png", "C:\\set\\x.png", "/data/set/x"])
def test_metadata_of_kohyas_scripts(tmp_path: Path, name: str) -> None:
    put(
        tmp_path / "meta_cap.json",
        {name: {"tags": "1girl, long hair", "caption": "a girl"}, "/set/y.png": {"caption": "a boy"}, "z": {"train_resolution": [1, 2]}},
    )
    found = read_kohya(tmp_path / "x.png", Asked())
    assert found and found.tags == {"general": ["1girl", "long_hair"]}
    other = read_kohya(tmp_path / "y.png", Asked())
    assert other and other.caption == "a boy" and not other.tags
    assert read_kohya(tmp_path / "z.png", Asked()) is None and read_kohya(tmp_path / "w.png", Asked()) is None


def test_a_metadata_file_that_is_named(tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere.json", {"x": {"tags": "smile"}})
    found = read_kohya(tmp_path / "set" / "x.png", Asked(metadata=elsewhere))
    assert found and found.tags == {"general": ["smile"]}
    with pytest.raises(UserError, match="no metadata file"):
        read_kohya(tmp_path / "x.png", Asked(metadata=tmp_path / "none.json"))
