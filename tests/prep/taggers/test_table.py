import re
from pathlib import Path

import pytest

from prep.options import UserError, load_object
from prep.taggers import CONTRACTS, LOCAL, TAGGERS, locate, row_of
from prep.taggers.contract import SHAPES, Contract
from prep.taggers.labels import READERS


@pytest.mark.parametrize("name", TAGGERS)
def test_every_row_is_whole(name: str) -> None:
    row = TAGGERS[name]
    assert row.description and name == name.lower()
    assert 0 < row.general < 1 and 0 < row.character < 1
    assert bool(row.repo) != bool(row.folder)
    assert all(callable(getattr(load_object(row.kind), method)) for method in ("prepare", "score"))
    contract = load_object(f"{CONTRACTS}:{row.contract}")
    assert isinstance(contract, Contract) and contract.shape in SHAPES and contract.layout in ("NHWC", "NCHW")
    assert row.files[0].endswith(".onnx") and Path(row.files[1]).suffix in READERS
    assert not row.sha256 or re.fullmatch("[0-9a-f]{64}", row.sha256)
    assert re.fullmatch(r"main|v2\.0|[0-9a-f]{40}", row.revision)


def test_only_camie_binds_what_is_built_from_it() -> None:
    assert [name for name, row in TAGGERS.items() if row.licence] == ["camie-v2"]


def test_eva02_is_calibrated_apart_from_the_others() -> None:
    others = [row.general for name, row in TAGGERS.items() if name.startswith("wd") and "eva" not in name]
    assert row_of("wd-eva02-large-v3").general > 0.5 > max(others)
    assert row_of("./mine") is LOCAL


def test_names_count_from_the_higher_threshold() -> None:
    row = TAGGERS["wd-vit-v3"]
    assert row.threshold("character") == row.threshold("artist") == 0.85 and row.threshold("meta") == row.threshold("general") == 0.2614


def test_a_name_that_is_neither_row_nor_folder_is_answered_with_the_rows() -> None:
    with pytest.raises(UserError, match="neither a tagger nor a folder; the taggers are pocket, wd-vit-v3"):
        locate("wd-vit-v4")


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model\.onnx"):
        locate(str(tmp_path))


def test_the_hub_out_of_reach_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline mode\nlong story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match=r"cannot fetch the tagger SmilingWolf/wd-vit-tagger-v3 from the hub \(offline mode\); go online once"):
        locate("wd-vit-v3")


def test_hub_files_are_known_by_their_commit_however_deep_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str, str, bool]] = []

    def found(repo: str, file: str, revision: str, local_files_only: bool, force_download: bool) -> str:
        asked.append((repo, file, revision, local_files_only))
        return f"/cache/snapshots/0123abcd/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", found)
    assert locate("wd-swinv2-v2").identity == "SmilingWolf/wd-v1-4-swinv2-tagger-v2@0123abcd"
    assert asked == [("SmilingWolf/wd-v1-4-swinv2-tagger-v2", file, "v2.0", False) for file in ("model.onnx", "selected_tags.csv")]
    monkeypatch.setattr("prep.taggers.hub.is_whole", lambda path, sha256: True)
    assert locate("deepdanbooru", offline=True).identity == "deepghs/imgutils-models@0123abcd"
    assert asked[-1][1:] == ("deepdanbooru/deepdanbooru_tags.csv", "main", True)
