"""The hub, as a small server that speaks its protocol, and huggingface_hub itself as the client in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"model.onnx": b"weights" * 1_800_000, "selected_tags.csv": b"tag_id,name,category,count\n1,hat,0,9\n"}
CUT = 11_000_000  # bytes after which a connection breaks; the client writes every 10 MiB
SHA256 = hashlib.sha256(FILES["model.onnx"]).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Answers HEAD and GET of OWNER/NAME/resolve/REVISION/FILE, large files with their sha256 as etag, and parts of a file."""

    server: "HubServer"
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name = self.path.rsplit("/", 1)[1].split("?")[0]
        if name not in FILES:  # the client asks for lists of its own
            self.send_error(404)
            return
        data, span = FILES[name], self.headers.get("Range", "")
        start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        self.server.asked.append(f"{self.command} {self.path} {start}")
        sent = self.server.sends.get(name, data)[start:]
        if body and self.server.breaks and name == "model.onnx":
            self.server.breaks -= 1
            sent = sent[:CUT]
        self.send_response(206 if span else 200)
        etag = SHA256 if name == "model.onnx" else hashlib.sha1(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(data) - start)}
        headers |= {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if span else {}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(sent)
            if len(sent) < len(data) - start:
                self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.asked: list[str] = []
        self.breaks = 0  # how many more times the connection breaks
        self.sends: dict[str, bytes] = {}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


CLIENT = """
import json, sys
from prep.options import UserError
from prep.taggers.hub import Source, fetch
for options in json.loads(sys.argv[1]):
    source = Source("owner/tagger", options.pop("revision", "main"), options.pop("sha256", ""), options.pop("licence", ""))
    try:
        print(json.dumps([str(path) for path in fetch(source, ("model.onnx", "selected_tags.csv"), **options)]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def fetched(hub: HubServer, folder: Path, *calls: dict[str, object]) -> list[list[str] | str]:
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_CACHE": str(folder), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    result = subprocess.run([sys.executable, "-c", CLIENT, json.dumps(calls)], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert "%|" not in result.stderr  # no bar where there is no terminal
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_files_come_at_their_revision_and_later_without_the_hub(hub: HubServer, tmp_path: Path) -> None:
    online, again, offline = fetched(
        hub, tmp_path, {"revision": COMMIT, "sha256": SHA256}, {"revision": COMMIT}, {"revision": COMMIT, "offline": True}
    )
    assert online == again == offline and Path(online[0]).parent.name == COMMIT
    assert [Path(path).read_bytes() for path in online] == list(FILES.values())
    assert all(f"/owner/tagger/resolve/{COMMIT}/" in line for line in hub.asked)
    assert sum(line.startswith("GET") for line in hub.asked) == 2


def test_offline_without_the_files_is_a_sentence_and_asks_nothing(hub: HubServer, tmp_path: Path) -> None:
    (answer,) = fetched(hub, tmp_path, {"offline": True})
    assert isinstance(answer, str) and answer.startswith("cannot fetch the tagger owner/tagger from the hub (") and "give --tagger FOLDER" in answer
    assert not hub.asked


def test_a_damaged_file_is_fetched_once_more_and_then_refused(hub: HubServer, tmp_path: Path) -> None:
    fetched(hub, tmp_path, {})
    blob = next(tmp_path.rglob(f"blobs/{SHA256}"))
    blob.write_bytes(b"w" * len(FILES["model.onnx"]))
    mended, offline = fetched(hub, tmp_path, {}, {"offline": True})
    assert mended == offline and Path(mended[0]).read_bytes() == FILES["model.onnx"]
    blob.write_bytes(b"w" * len(FILES["model.onnx"]))
    hub.sends["model.onnx"] = b"w" * len(FILES["model.onnx"])
    for options in ({}, {"offline": True}, {"sha256": "0" * 64}):
        (answer,) = fetched(hub, tmp_path, options)
        assert isinstance(answer, str) and "its sha256 differs" in answer


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: HubServer, tmp_path: Path) -> None:
    hub.breaks = 1
    (found,) = fetched(hub, tmp_path, {})
    assert Path(found[0]).read_bytes() == FILES["model.onnx"]
    starts = [int(line.split()[-1]) for line in hub.asked if line.startswith("GET") and "model.onnx" in line]
    assert starts[0] == 0 and 0 < starts[1] <= CUT and len(starts) == 2


def test_a_licence_that_binds_has_to_be_accepted_before_the_first_fetch(hub: HubServer, tmp_path: Path) -> None:
    refused, accepted, later = fetched(hub, tmp_path, {"licence": "GPL-3.0"}, {"licence": "GPL-3.0", "accepted": True}, {"licence": "GPL-3.0"})
    assert isinstance(refused, str) and "GPL-3.0" in refused and refused.endswith("give --accept-licence")
    assert isinstance(accepted, list) and later == accepted
