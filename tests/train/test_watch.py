import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from train.config import TrainConfig
from train.control import Control
from train.watch import STRINGS, Watch, app

PORT = 8125
HOME = f"http://127.0.0.1:{PORT}"


def record(step: int) -> dict[str, Any]:
    return {"step": step, "epoch": 1 + step // 5, "loss": 1.0 / step, "mean_loss": 0.5, "grad_norm": 0.1, "lr_unet": 1e-4, "seconds": 0.5}


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    config = TrainConfig.load({"project": {"name": "mira"}}, {}).at(tmp_path)
    config.output.output_dir.mkdir(parents=True)
    return Watch(config)


@pytest.fixture
def client(watch: Watch) -> TestClient:
    return TestClient(app(watch, "t", PORT), base_url=f"{HOME}/t", headers={"origin": HOME})


def log(watch: Watch, steps: int) -> None:
    watch.log.write_text("".join(json.dumps(record(step)) + "\n" for step in range(1, steps + 1)), encoding="utf-8")


def test_before_the_first_step_the_page_waits(client: TestClient) -> None:
    assert set(client.get("api/state").json()) == {"stamp", "asked"}
    assert client.post("api/ask", params={"word": "stop"}, content="{}").status_code == 400
    assert client.get("").status_code == 200 and "script-src 'self'" in client.get("").headers["content-security-policy"]


def test_a_running_run_is_drawn_anew_only_when_there_is_something_new(watch: Watch, client: TestClient) -> None:
    log(watch, 8)
    found = client.get("api/state").json()
    assert found["running"] and "step 8" in found["head"] and "<svg" in found["curves"] and "learning_rate" in found["settings"]
    assert "head" not in client.get("api/state", params={"stamp": found["stamp"]}).json()
    log(watch, 9)
    assert "step 9" in client.get("api/state", params={"stamp": found["stamp"]}).json()["head"]


def test_the_run_is_asked_as_train_control_asks(watch: Watch, client: TestClient) -> None:
    log(watch, 3)
    assert client.post("api/ask", params={"word": "stop"}, content="{}").json() == {"asked": "stop"}
    assert client.get("api/state").json()["asked"] == "stop"
    control = Control(watch.control)
    assert control.asked() == "stop" and control.stopping and client.get("api/state").json()["asked"] == ""
    assert client.post("api/ask", params={"word": "none"}, content="{}").json() == {"asked": ""} and control.asked() == "none"
    assert client.post("api/ask", params={"word": "die"}, content="{}").status_code == 400
    assert client.get("api/ask", params={"word": "stop"}).status_code == 405
    assert client.post("api/ask", params={"word": "stop"}, content="{}", headers={"origin": "http://evil.example"}).status_code == 403


def test_samples_of_the_run_are_sent_and_no_other_file(watch: Watch, client: TestClient) -> None:
    log(watch, 8)
    folder, name = watch.config.output.output_dir, watch.config.output.output_name
    Image.new("RGB", (8, 8)).save(folder / f"{name}-samples-00000004.png")
    (folder / "other.png").write_bytes(b"secret")
    assert client.get("api/state").json()["samples"] == [{"file": f"{name}-samples-00000004.png", "step": 4}]
    assert client.get("sample", params={"file": f"{name}-samples-00000004.png"}).headers["content-type"] == "image/png"
    for other in ("other.png", "../dataset.toml", f"{name}.jsonl", str(folder / "other.png"), ""):
        assert client.get("sample", params={"file": other}).status_code == 400


def test_what_files_say_is_text_in_the_page(watch: Watch) -> None:
    log(watch, 2)
    evil = "<script>alert(1)</script>"
    config = TrainConfig.load({"project": {"name": "mira"}}, {"log_tracker_name": evil}).at(watch.config.output.output_dir.parent)
    found = TestClient(app(Watch(config), "t", PORT), base_url=f"{HOME}/t").get("api/state").json()
    assert "<script" not in found["head"] + found["curves"] + found["settings"] and "&lt;script&gt;" in found["settings"]


def test_the_curves_and_figures_speak_russian_too(watch: Watch, client: TestClient) -> None:
    judged = {"loss": 0.4, "base": 0.5, "score": 0.4, "band": 0.01, "learned": 0.2, "needs_keyword": 0.1, "bleed": 0.0}
    records = [record(1), record(2), {**record(3), "lr_text_encoder": 1e-4, "validation": judged}]
    watch.log.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    english = client.get("api/state").json()
    found = client.get("api/state", params={"stamp": english["stamp"], "language": "ru"}).json()
    head, shown = found["head"], found["curves"]
    for words in ("Норма градиента", "лучшая, эпоха 1", "кодировщик текста", "числами", "логарифмическая шкала"):
        assert words in shown
    plain = re.sub(r"<[^>]*>", " ", head + shown + found["settings"].split("<table", 1)[0])
    assert set(re.findall(r"[A-Za-z_]{3,}", plain)) == {"max_grad_norm", "UNet"}, plain


def test_both_languages_say_all_that_the_page_asks_for() -> None:
    folder = Path(__file__).parents[2] / "train/watch_page"
    texts = "".join((folder / name).read_text(encoding="utf-8") for name in ("watch.js", "index.html"))
    asked = set(re.findall(r'\bt\("([^"]+)"', texts)) | set(re.findall(r'data-t="([^"]+)"', texts))
    assert asked and asked <= set(STRINGS) and all(english and russian for english, russian in STRINGS.values())
    assert "://" not in texts and "innerHTML" not in texts
