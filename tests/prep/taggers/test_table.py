from pathlib import Path

import pytest

from prep.options import UserError, load_object
from prep.taggers import LOCAL, TAGGERS, TaggerRow, locate, row_of


@pytest.mark.parametrize("name", TAGGERS)
def test_every_row_is_whole(name: str) -> None:
    row = TAGGERS[name]
    assert row.description and name == name.lower()
    assert 0 < row.general < 1 and 0 < row.character < 1
    assert bool(row.repo) != bool(row.folder)
    assert all(callable(getattr(load_object(row.kind), method)) for method in ("prepare", "score"))


def test_eva02_is_calibrated_apart_from_the_others() -> None:
    others = [row.general for name, row in TAGGERS.items() if name.startswith("wd") and "eva" not in name]
    assert row_of("wd-eva02-large-v3").general > 0.5 > max(others)
    assert row_of("./mine") is LOCAL


def test_a_name_that_is_neither_row_nor_folder_is_answered_with_the_rows() -> None:
    with pytest.raises(UserError, match="neither a tagger nor a folder; the taggers are pocket, wd-vit-v3"):
        locate("wd-vit-v4")


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model\.onnx"):
        locate(str(tmp_path))


def test_the_hub_out_of_reach_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline mode\nlong story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match=r"cannot fetch the tagger SmilingWolf/wd-vit-tagger-v3 from the hub \(offline mode\); go online once"):
        locate("wd-vit-v3")


def test_hub_files_are_known_by_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str, str]] = []

    def fetched(repo: str, file: str, revision: str) -> str:
        asked.append((repo, file, revision))
        return f"/cache/snapshots/0123abcd/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    assert locate("wd-moat-v2").identity == "SmilingWolf/wd-v1-4-moat-tagger-v2@0123abcd"
    assert asked == [("SmilingWolf/wd-v1-4-moat-tagger-v2", file, "v2.0") for file in ("model.onnx", "selected_tags.csv")]
    assert TaggerRow("x", 0.5).kind == TAGGERS["pocket"].kind
