from pathlib import Path

import pytest

from prep.embedders import EMBEDDERS, LOCAL_CCIP, LOCAL_FACES, embedder, row_of
from prep.options import UserError, load_object
from tests.prep.embedders.models import make_ccip, make_faces


@pytest.mark.parametrize("name", EMBEDDERS)
def test_every_row_is_whole(name: str) -> None:
    row = EMBEDDERS[name]
    assert row.description and name == name.lower()
    assert 0 < row.limit < 1
    assert bool(row.repo) == bool(row.files)
    assert all(callable(getattr(load_object(row.kind), method)) for method in ("embed", "judge"))


def test_what_is_neither_row_nor_model_is_answered_with_the_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither an embedder nor a model; the embedders are tagger, ccip, sface, arcface"):
        row_of(str(tmp_path))


def test_folders_and_files_of_ones_own_are_known_by_what_they_hold(tmp_path: Path) -> None:
    assert row_of(str(make_ccip(tmp_path / "ccip"))) is LOCAL_CCIP
    assert row_of(str(make_faces(tmp_path / "mine.onnx"))) is LOCAL_FACES


def test_half_a_ccip_is_named(tmp_path: Path) -> None:
    (make_ccip(tmp_path) / "model_metrics.onnx").unlink()
    with pytest.raises(UserError, match=r"holds no model_metrics\.onnx"):
        embedder(str(tmp_path))


def test_other_weights_are_another_version(tmp_path: Path) -> None:
    one, other = (embedder(str(make_faces(tmp_path / f"{length}.onnx", length))) for length in (128, 512))
    assert one.version != other.version
    assert one.version == embedder(str(tmp_path / "128.onnx")).version


def test_hub_files_are_known_by_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str]] = []

    def fetched(repo: str, file: str, revision: str) -> str:
        asked.append((repo, file))
        return f"/cache/snapshots/0123abcd/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    assert "deepghs/ccip_onnx@0123abcd" in embedder("ccip").version
    assert asked == [("deepghs/ccip_onnx", f"ccip-caformer-24-randaug-pruned/model_{what}.onnx") for what in ("feat", "metrics")]
    assert "opencv/face_recognition_sface@0123abcd" in embedder("sface").version


def test_the_hub_out_of_reach_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline mode\nlong story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match=r"cannot fetch the embedder ccip \(deepghs/ccip_onnx\) from the hub \(offline mode\); go online once"):
        embedder("ccip")
