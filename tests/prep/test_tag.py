import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from prep.cli import main
from prep.options import UserError
from prep.prepared import STEP_BACK, ahead, step_back
from prep.processor import multiplies_bytes
from prep.scores import ScoreStore
from prep.store import Store
from prep.tag import Tag
from prep.taggers import TAGGERS
from prep.taggers.onnx_tagger import OnnxTagger
from tests.prep.taggers.models import make_row, make_tagger


def prep(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tagger(tmp_path / "tagger")
    (tmp_path / "raw").mkdir()
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "raw/red.png")
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "raw/blue.png")
    Image.new("RGB", (32, 32), (0, 160, 0)).save(tmp_path / "raw/green.webp", lossless=True)
    return tmp_path


def tag(folder: Path, *arguments: object) -> Result:
    return prep("tag", folder / "raw", "--tagger", folder / "tagger", *arguments)


def captions(folder: Path) -> dict[str, str]:
    # What a killed write left under a temporary name is hidden.
    texts = (path for path in (folder / "raw").glob("*.txt") if not path.name.startswith("."))
    return {path.stem: path.read_text(encoding="utf-8").strip() for path in texts}


def test_every_picture_gets_its_tags_beside_it_and_stays_as_it_is(folder: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "raw").iterdir()}
    result = tag(folder)
    assert result.exit_code == 0, result.output
    assert captions(folder) == {"red": "red rose", "blue": "blue sky, ^_^", "green": "green grass"}
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == was for path, was in before.items())


def test_the_options_of_caption_work_here_too(folder: Path) -> None:
    assert tag(folder, "--threshold", 0.3, "--character-threshold", 0.5, "--rating", "last", "--blacklist", "red_*").exit_code == 0
    assert captions(folder)["red"] == "1girl, hatsune miku, sensitive"
    names = "".join(prep("tag", "--help").output.split())  # Click breaks long lines anywhere
    assert "--diff" not in names and "wd-eva02-large-v3" in names


def test_what_has_scores_is_not_scored_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tag(folder).exit_code == 0
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("raw/*.txt")}
    seen: list[int] = []
    monkeypatch.setattr(OnnxTagger, "prepare", lambda self, image: seen.append(1))
    assert tag(folder).exit_code == 0
    shutil.copy2(folder / "raw/red.png", folder / "raw/same.png")
    shutil.rmtree(folder / "raw/.atelier/items")
    assert tag(folder).exit_code == 0
    assert not seen
    assert all(path.stat().st_mtime_ns == was for path, was in written.items())
    assert captions(folder)["same"] == captions(folder)["red"]


def test_a_picture_that_was_edited_and_a_new_tagger_are_scored_anew(folder: Path) -> None:
    assert tag(folder).exit_code == 0
    Image.new("RGB", (32, 32), (0, 0, 255)).save(folder / "raw/red.png")
    assert tag(folder).exit_code == 0
    assert captions(folder)["red"] == captions(folder)["blue"]
    make_tagger(folder / "tagger", scale=0.4 / 255)
    assert tag(folder).exit_code == 0
    assert captions(folder)["blue"] == "blue sky"


def test_a_broken_picture_is_set_aside_and_the_others_go_on(folder: Path) -> None:
    (folder / "raw/broken.png").write_bytes((folder / "raw/red.png").read_bytes()[:40])
    result = tag(folder)
    assert result.exit_code == 0 and "1 set aside" in result.output
    assert set(captions(folder)) == {"red", "blue", "green"}


def test_the_crop_is_what_the_tagger_sees(folder: Path) -> None:
    image = Image.new("RGB", (64, 32), (255, 0, 0))
    image.paste((0, 0, 255), (32, 0, 64, 32))
    image.save(folder / "raw/two.png")
    assert tag(folder).exit_code == 0
    store = Store(folder / "raw")
    item = next(item for item in store.load() if item.key == "two")
    item.crop = (32, 0, 64, 32)
    store.save(item)
    assert tag(folder).exit_code == 0
    assert captions(folder)["two"] == "blue sky, ^_^"


def test_order_and_batch_size_do_not_matter(folder: Path) -> None:
    assert tag(folder, "-b", 1).exit_code == 0
    one = captions(folder)
    for path in (folder / "raw").glob("*.txt"):
        path.unlink()
    shutil.rmtree(folder / "raw/.atelier")
    assert tag(folder, "-b", 2).exit_code == 0
    assert captions(folder) == one


def test_mistakes_end_in_one_sentence(folder: Path) -> None:
    for arguments, words in (
        (("tag", folder / "raw", "--tagger", "wd-vit-v9"), "neither a tagger nor a folder"),
        (("tag", folder / "nowhere"), "there is no folder"),
        (("tag", folder / "tagger"), "there are no pictures"),
    ):
        result = prep(*arguments)
        assert result.exit_code == 1 and words in result.output and "Traceback" not in result.output
    assert tag(folder, "-t", 2).exit_code == 2
    with pytest.raises(UserError):
        list(Tag(tagger="nothing")(Store(folder / "raw").items(), Store(folder / "raw")))


def rows(folder: Path) -> list[tuple[object, ...]]:
    """All that the store holds, byte by byte."""
    database = sqlite3.connect(folder / "raw/.atelier/scores.sqlite")
    found = [*database.execute("SELECT * FROM scores ORDER BY picture"), *database.execute("SELECT * FROM models")]
    database.close()
    return found


def many(folder: Path, count: int) -> None:
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number % 7, 30 - number % 5, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"raw/{number:03}.png")


def test_items_come_in_order_whatever_has_to_be_done_for_them(folder: Path) -> None:
    many(folder, 20)
    assert tag(folder).exit_code == 0
    Image.new("RGB", (9, 9)).save(folder / "raw/005.png")
    (folder / "raw/011.png").write_bytes(b"no picture")
    store = Store(folder / "raw")
    items = list(Tag(tagger=str(folder / "tagger"), batch_size=3, readers=2)(store.items(), store))
    assert [item.key for item in items] == [item.key for item in store.items()]
    assert [item.key for item in items if item.dropped] == ["011"]


def test_one_by_one_in_batches_and_in_processes_give_the_same_store_to_the_byte(folder: Path) -> None:
    many(folder, 13)
    stores = []
    for arguments in (("-b", 1), ("-b", 5, "--readers", 3), ("--executor", "processes", "--workers", 2, "-b", 1), ("--shard", "1/2")):
        shutil.rmtree(folder / "raw/.atelier", ignore_errors=True)
        assert tag(folder, *arguments).exit_code == 0
        if "--shard" in arguments:
            assert tag(folder, "--shard", "2/2").exit_code == 0
            assert not (folder / "raw/.atelier/captions.sqlite").exists()
            assert not (folder / "raw/.atelier/scores.sqlite").exists()
            assert tag(folder).exit_code == 0  # takes both in
        stores.append(rows(folder))
    assert all(store == stores[0] for store in stores) and len(stores[0]) == 17


def test_scores_that_are_no_numbers_are_never_kept(folder: Path) -> None:
    assert tag(folder).exit_code == 0
    kept = captions(folder)
    make_tagger(folder / "tagger", scale=float("nan"))
    for executor in ("here", "processes"):
        result = tag(folder, "--executor", executor)
        assert result.exit_code != 0 and "not between 0 and 1" in result.output and "Traceback" not in result.output
    with sqlite3.connect(folder / "raw/.atelier/scores.sqlite") as database:
        rows = database.execute("SELECT count(*) FROM scores GROUP BY model").fetchall()
    assert rows == [(3,)] and captions(folder) == kept  # those of the sound model alone


def without_numbers_for_black(folder: Path) -> None:
    """Make the tagger in a folder multiply its scores by sum / sum of the colours."""
    model = onnx.load(str(folder / "model.onnx"))
    model.graph.node[-1].output[0] = "before"
    model.graph.node.extend(
        [
            onnx.helper.make_node("ReduceSum", ["mean"], ["sum"]),
            onnx.helper.make_node("Div", ["sum", "sum"], ["one"]),
            onnx.helper.make_node("Mul", ["before", "one"], ["output"]),
        ]
    )
    onnx.save(model, str(folder / "model.onnx"))


@pytest.mark.parametrize("executor", ["here", "processes"])
def test_a_picture_without_sound_scores_is_set_aside_until_it_gets_some(folder: Path, executor: str) -> None:
    without_numbers_for_black(folder / "tagger")
    for name in ("black", "night"):
        Image.new("RGB", (32, 32)).save(folder / f"raw/{name}.png")
    for _ in range(2):  # the second time it is tried again, and nothing else is
        result = tag(folder, "--executor", executor)
        assert result.exit_code == 0 and "2 set aside (2 no_scores)" in result.output, result.output
        assert set(captions(folder)) == {"red", "blue", "green"} and len(rows(folder)) == 4
    make_tagger(folder / "tagger")
    assert tag(folder, "--executor", executor).exit_code == 0
    assert {"black", "night"} < set(captions(folder)) and not any(item.dropped for item in Store(folder / "raw").load())


def rank() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a rank of their own on Linux alone")
def test_decoders_step_back_behind_the_model_and_nobody_else_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, ranks = rank(), []
    prepare, score = OnnxTagger.prepare, OnnxTagger.score
    monkeypatch.setattr(OnnxTagger, "prepare", lambda self, image: (prepare(self, image), ranks.append(rank()))[0])
    monkeypatch.setattr(OnnxTagger, "score", lambda self, pixels: (score(self, pixels), ranks.append(rank() + 100))[0])
    step = Tag(tagger=str(folder / "tagger"), device="cpu", readers=1)
    assert len(list(step(Store(folder / "raw").items(), Store(folder / "raw")))) == 3
    decoders = [each for each in ranks if each < 100]
    assert decoders == [before, max(before, STEP_BACK), max(before, STEP_BACK)]  # the first one loads the model
    assert {each - 100 for each in ranks if each >= 100} == {before} and rank() == before
    with ThreadPoolExecutor(1) as pool:
        pool.submit(step_back).result()
        assert pool.submit(rank).result() == max(before, STEP_BACK)


def test_the_stream_is_drawn_ahead_but_not_far() -> None:
    drawn: list[int] = []
    stream = ahead((drawn.append(number) or number for number in range(50)), 4)
    assert next(stream) == 0 and len(drawn) == 4
    assert next(stream) == 1 and len(drawn) == 5
    assert list(stream) == list(range(2, 50))


def test_the_model_runs_on_while_scores_are_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many(folder, 9)
    calls, again = [], threading.Event()
    score, put = OnnxTagger.score, ScoreStore.put

    def scoring(self: OnnxTagger, pixels: list) -> np.ndarray:
        calls.append(len(pixels))
        if len(calls) > 1:
            again.set()
        return score(self, pixels)

    def putting(self: ScoreStore, model: object, values: dict) -> None:
        assert again.wait(20), "the model waits for the disk"
        put(self, model, values)

    monkeypatch.setattr(OnnxTagger, "score", scoring)
    monkeypatch.setattr(ScoreStore, "put", putting)
    result = tag(folder, "-b", 4)
    assert result.exit_code == 0 and calls == [4, 4, 4], result.output
    assert len(rows(folder)) == 13


def test_int8_says_which_tags_flip_and_keeps_its_scores_apart(folder: Path) -> None:
    shutil.rmtree(folder / "tagger")
    make_row(folder / "tagger", TAGGERS["joytag"])
    many(folder, 12)
    assert tag(folder).exit_code == 0
    result = tag(folder, "--precision", "int8")
    assert result.exit_code == 0 and "tags (" in result.output and "flip on" in result.output, result.output
    made = [path.name for path in (folder / "raw/.atelier/models").iterdir()]
    assert len(made) == 2 and any(name.endswith("-int8.onnx") for name in made)
    with ScoreStore.open(folder / "raw/.atelier") as scores:
        assert scores._database.execute("SELECT count(*) FROM models").fetchone() == (2,)
    before = rows(folder)
    again = tag(folder, "--precision", "int8")
    assert again.exit_code == 0 and "flip on" in again.output and rows(folder) == before
    assert multiplies_bytes() in (True, False)


def test_half_floats_are_near_the_scores_of_whole_ones(folder: Path) -> None:
    many(folder, 6)
    assert tag(folder).exit_code == 0
    result = tag(folder, "--precision", "fp16", "--device", "cpu")
    assert result.exit_code == 0 and "fp16: 0 of" in result.output, result.output


def test_a_precision_without_pictures_or_without_onnx_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = tag(folder, "--precision", "int8")
    assert result.exit_code == 1 and "pip install onnx" in result.output


KILLED = """
import sys
from prep.cli import main
main(["tag", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_random_moments_and_run_again_the_store_and_captions_are_the_same(folder: Path) -> None:
    many(folder, 60)
    assert tag(folder).exit_code == 0
    expected, texts = rows(folder), captions(folder)
    rng = np.random.default_rng(5)
    command = [sys.executable, "-c", KILLED, str(folder / "raw"), "--tagger", str(folder / "tagger"), "-b", "4"]
    shutil.rmtree(folder / "raw/.atelier")
    for path in (folder / "raw").glob("*.txt"):
        path.unlink()
    started = time.monotonic()
    assert subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True).returncode == 0
    whole = time.monotonic() - started
    killed = 0
    for _ in range(20):
        shutil.rmtree(folder / "raw/.atelier")
        for path in (folder / "raw").glob("*.txt"):
            path.unlink()
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3, 1) * whole)
        os.kill(process.pid, signal.SIGKILL)
        late = process.wait() != -signal.SIGKILL
        killed += not late
        whole *= 0.7 if late else 1.0  # the machine is less busy than at first
        assert tag(folder).exit_code == 0
        assert rows(folder) == expected and captions(folder) == texts
    assert killed >= 10
