"""Caption states: what is known of captions lies in one table, also for folders of an older version, and survives copies and deletions."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prep.caption_states import BLANK, FILE, TOGETHER, CaptionStates
from prep.item import Item
from prep.options import UserError
from prep.store import Store


def state(**known: object) -> dict[str, object]:
    return {**BLANK, **known}


def test_a_state_comes_back_and_a_blank_one_takes_no_room(tmp_path: Path) -> None:
    states = CaptionStates(tmp_path)
    states.put({"a": state()})
    assert states.get("a") is None and not (tmp_path / FILE).exists()
    states.put({"a": state(tags=["1girl", "^_^"], written="é, ö", hand=True)})
    assert CaptionStates(tmp_path).get("a") == state(tags=["1girl", "^_^"], written="é, ö", hand=True)
    states.forget("a")
    assert CaptionStates(tmp_path).get("a") is None


def test_many_are_read_in_the_order_they_are_asked_for(tmp_path: Path) -> None:
    states, count = CaptionStates(tmp_path), TOGETHER + 3
    for number in range(0, count, 100):
        states.put({str(number): state(keyword=str(number))})
    keys = [str(number) for number in reversed(range(count))]
    found = [row and row["keyword"] for row in states.read(keys)]
    assert found == [key if int(key) % 100 == 0 else None for key in keys]


def test_what_is_unchanged_is_not_written(tmp_path: Path) -> None:
    states = CaptionStates(tmp_path)
    states.put({"a": state(keyword="mira")})
    with states._connection(create=False) as database:
        assert database is not None
        before = database.total_changes
        states.put({"a": state(keyword="mira")})
        assert database.total_changes == before


def test_threads_and_pickled_copies_share_a_table(tmp_path: Path) -> None:
    states = CaptionStates(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: states.put({str(number): state(keyword=str(number))}), range(20)))
    copy = pickle.loads(pickle.dumps(states))
    assert [row and row["keyword"] for row in copy.read(map(str, range(20)))] == list(map(str, range(20)))


def test_a_store_forgets_what_was_deleted_under_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(Item("a", tmp_path / "a.png", keyword="mira"))
    shutil.rmtree(store.hidden)
    assert store.get("a") is None
    store.save(Item("a", tmp_path / "a.png", written="1girl"))
    (item,) = Store(tmp_path).load()
    assert (item.keyword, item.written) == ("", "1girl")
    store.forget("a")
    store.save(Item("a", tmp_path / "a.png"))
    assert Store(tmp_path).load() == [Item("a", tmp_path / "a.png")]


def test_a_sidecar_of_an_older_version_keeps_its_caption_and_moves_it(tmp_path: Path) -> None:
    store, path = Store(tmp_path), tmp_path / ".atelier/items/a.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"key": "a", "path": "a.png", "tags": ["hat"], "written": "mira, hat", "keyword": "mira"}), encoding="utf-8")
    (item,) = store.stream()
    assert (item.tags, item.written, item.keyword) == (["hat"], "mira, hat", "mira")
    store.save(item)
    assert not BLANK.keys() & json.loads(path.read_text(encoding="utf-8")).keys()
    assert Store(tmp_path).get("a") == item


def test_a_damaged_table_is_a_sentence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(Item("a", tmp_path / "a.png"))
    (store.hidden / FILE).write_bytes(b"no database at all" * 300)
    with pytest.raises(UserError, match=r"captions\.sqlite cannot be used .*; delete it"):
        store.get("a")
