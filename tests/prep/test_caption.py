from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep import caption as module
from prep.caption import compile_tags
from prep.captions import KAOMOJI
from prep.cli import main
from prep.edits import Policy
from prep.images import load, pixel_hash
from prep.item import Item, Store
from prep.scores import Labels, ScoreStore
from prep.taggers import TaggerRow

ROW = TaggerRow("test", 0.35)
TAGS = ["1girl", "solo", "long_hair", "very_long_hair", "^_^", "smile", "hat", "witch_hat", "2boys"]
SCORES = {
    "rating": {"general": 0.3, "sensitive": 0.6, "questionable": 0.05, "explicit": 0.05},
    "general": {"smile": 0.9, "1girl": 0.99, "long_hair": 0.98, "very_long_hair": 0.5, "solo": 0.97, "hat": 0.34, ">_<": 0.35, "red_eyes": 0.9},
    "character": {"hatsune_miku_(vocaloid)": 0.9, "kagamine_rin": 0.84},
}


def test_a_caption_is_counts_then_names_then_tags_by_score() -> None:
    assert compile_tags(SCORES, Policy(), ROW) == ["1girl", "solo", "hatsune miku (vocaloid)", "red eyes", "smile", "very long hair", ">_<"]


@pytest.mark.parametrize(
    ("policy", "tags"),
    [
        (Policy(threshold=0.95), ["1girl", "solo", "hatsune miku (vocaloid)", "long hair"]),
        (Policy(threshold=0.95, character_threshold=0.8), ["1girl", "solo", "hatsune miku (vocaloid)", "kagamine rin", "long hair"]),
        (Policy(threshold=0.95, rating="first"), ["sensitive", "1girl", "solo", "hatsune miku (vocaloid)", "long hair"]),
        (Policy(threshold=0.95, rating="last"), ["1girl", "solo", "hatsune miku (vocaloid)", "long hair", "sensitive"]),
        (Policy(top_k=2), ["1girl", "solo"]),
        (Policy(whitelist="*hair, smile", prune=False), ["long hair", "smile", "very long hair"]),
        (Policy(threshold=0.95, full_name="Hatsune Miku"), ["1girl", "solo", "long hair"]),
        (Policy(threshold=1, character_threshold=1), []),
    ],
)
def test_the_policy_decides(policy: Policy, tags: list[str]) -> None:
    assert compile_tags(SCORES, policy, ROW) == tags


@given(st.dictionaries(st.sampled_from(TAGS), st.floats(0, 1)), st.randoms(use_true_random=False), st.floats(0, 1))
def test_compiling_does_not_depend_on_the_order_of_the_scores(general: dict[str, float], random, threshold: float) -> None:
    shuffled = list(general.items())
    random.shuffle(shuffled)
    policy = Policy(threshold=threshold)
    tags = compile_tags({"general": general}, policy)
    assert tags == compile_tags({"general": dict(shuffled)}, policy) and len(tags) == len(set(tags))


def test_kaomoji_reach_the_caption_whole() -> None:
    assert set(compile_tags({"general": dict.fromkeys(KAOMOJI, 1.0)}, Policy())) == KAOMOJI


# The step, over pictures whose scores are planted.
LABELS = Labels(("general", "1girl", "red_eyes", "hat"), ("rating", "general", "general", "general"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    with ScoreStore.open(store.hidden) as scores:
        model = scores.register("planted", "w", 1, LABELS)
        for key, level in (("a", 10), ("b", 20)):
            path = tmp_path / f"{key}.png"
            Image.new("RGB", (8, 8), (level, 0, 0)).save(path)
            item = Item(key, path, digest=pixel_hash(load(path)))
            scores.put(model, {item.digest: np.array([1, 0.99, 0.5 + level / 100, 0.4], np.float32)})
            store.save(item)
    return tmp_path


def prep(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def item(folder: Path, key: str) -> Item:
    return next(item for item in Store(folder).load() if item.key == key)


def test_captions_are_compiled_and_only_touched_when_they_change(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "a.txt") == "1girl, red eyes, hat\n"
    before = (folder / "a.txt").stat().st_mtime_ns
    assert prep("caption", folder, "-t", 0.65).exit_code == 0
    assert (text(folder / "a.txt"), text(folder / "b.txt")) == ("1girl\n", "1girl, red eyes\n")
    assert item(folder, "b").caption == "1girl, red eyes" and item(folder, "b").tags == ["1girl", "red eyes"]
    assert prep("caption", folder).exit_code == 0
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "a.txt") == "1girl, red eyes, hat\n" and (folder / "a.txt").stat().st_mtime_ns > before


def test_a_caption_changed_by_hand_stays_and_a_deleted_one_is_compiled_again(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    by_hand = b"a girl\r\nwith red eyes , smiling"
    (folder / "a.txt").write_bytes(by_hand)
    for threshold in (0.3, 0.9):
        assert prep("caption", folder, "-t", threshold).exit_code == 0
        assert (folder / "a.txt").read_bytes() == by_hand and item(folder, "a").hand
    (folder / "a.txt").unlink()
    assert prep("caption", folder, "-t", 0.9).exit_code == 0
    assert text(folder / "a.txt") == "1girl\n" and not item(folder, "a").hand
    (folder / "a.txt").write_text(" \n", encoding="utf-8")
    assert prep("caption", folder, "-t", 0.9).exit_code == 0
    assert text(folder / "a.txt") == "1girl\n"


def test_a_caption_from_before_us_and_one_from_the_raw_picture_are_a_persons(folder: Path) -> None:
    (folder / "a.caption").write_text("mine", encoding="utf-8")
    with_import = item(folder, "b")
    with_import.imported_caption = "imported, words"
    Store(folder).save(with_import)
    for _ in range(2):
        assert prep("caption", folder).exit_code == 0
        assert item(folder, "a").caption == "mine" and item(folder, "a").hand
        assert text(folder / "b.txt") == "imported, words\n" and item(folder, "b").hand
    (folder / "b.txt").unlink()
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "b.txt") == "1girl, red eyes, hat\n"


def test_diff_shows_and_writes_nothing(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = prep("caption", folder, "--diff", "-t", 0.65)
    assert result.exit_code == 0
    assert f"{folder / 'a.txt'}: -red eyes, -hat" in result.output and f"{folder / 'b.txt'}: -hat" in result.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("dies_after_the_text", [False, True])
def test_a_run_killed_while_writing_does_not_take_its_own_text_for_a_persons(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dies_after_the_text: bool
) -> None:
    assert prep("caption", folder).exit_code == 0
    real = module.atomic_write

    def dying(path: Path, data: str) -> None:
        if dies_after_the_text:
            real(path, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "atomic_write", dying)
    assert prep("caption", folder, "-t", 0.9).exit_code != 0
    monkeypatch.undo()
    assert prep("caption", folder, "-t", 0.45).exit_code == 0
    assert text(folder / "a.txt") == text(folder / "b.txt") == "1girl, red eyes\n"
    assert not item(folder, "a").hand and item(folder, "a").stamps == {}


def test_missing_scores_are_a_sentence(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    result = prep("caption", folder, "--tagger", "wd-vit-v3")
    assert result.exit_code == 1 and "run `prep tag --tagger wd-vit-v3` first" in result.output
    Image.new("RGB", (8, 8), "green").save(folder / "new.png")
    result = prep("caption", folder)
    assert result.exit_code == 1 and "new.png has not been scored by planted; run `prep tag` first" in result.output
    bare = tmp_path_factory.mktemp("bare")
    Image.new("RGB", (8, 8)).save(bare / "x.png")
    result = prep("caption", bare)
    assert result.exit_code == 1 and "has been scored yet; run `prep tag` first" in result.output
    assert prep("caption", tmp_path_factory.mktemp("empty"), "--diff").exit_code == 1
