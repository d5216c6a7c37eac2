import json
import socket
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from prep.options import UserError
from prep.web import MOST, assets, guarded, serve

PORT, TOKEN = 8123, "the-token"
HOME = f"http://127.0.0.1:{PORT}"
OWN = {"origin": HOME}


async def told(request: Request) -> JSONResponse:
    return JSONResponse({"method": request.method, "body": (await request.body()).decode()})


def refused(request: Request) -> JSONResponse:
    raise UserError("no such picture; choose another")


@pytest.fixture
def client() -> TestClient:
    routes = [Route("/told", told, methods=["GET", "POST"]), Route("/refused", refused), *assets("prep.review", "page")]
    return TestClient(guarded(routes, TOKEN, PORT), base_url=HOME)


@pytest.mark.parametrize("path", ["/", "/told", "/wrong/told", f"/{TOKEN}x/told", f"/{TOKEN[:-1]}/told", f"//{TOKEN}/told", "/é/told"])
def test_without_the_token_nothing_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 403 and "token" in answer.text and TOKEN not in answer.text


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1.evil.example:{PORT}", ""])
def test_another_host_is_refused_though_the_token_is_right(client: TestClient, host: str) -> None:
    assert client.get(f"/{TOKEN}/told", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}"])
def test_both_names_of_this_machine_are_served(client: TestClient, host: str) -> None:
    assert client.get(f"/{TOKEN}/told", headers={"host": host}).json()["method"] == "GET"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"https://127.0.0.1:{PORT}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {},
    ],
)
def test_writing_from_another_origin_or_none_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post(f"/{TOKEN}/told", content=b"{}", headers=headers).status_code == 403


def test_reading_from_another_origin_is_refused(client: TestClient) -> None:
    assert client.get(f"/{TOKEN}/told", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get(f"/{TOKEN}/told", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_writing_from_the_page_itself_is_done(client: TestClient) -> None:
    assert client.post(f"/{TOKEN}/told", content=b"hello", headers=OWN).json() == {"method": "POST", "body": "hello"}
    assert client.post(f"/{TOKEN}/told", content=b"hello", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_a_request_that_is_too_large_or_of_unknown_length_is_refused(client: TestClient) -> None:
    assert client.post(f"/{TOKEN}/told", content=b"x", headers={**OWN, "content-length": str(MOST + 1)}).status_code == 413
    assert client.post(f"/{TOKEN}/told", content=iter([b"x"]), headers=OWN).status_code == 411


@pytest.mark.parametrize(
    "path", ["../pyproject.toml", "..%2fpyproject.toml", "%2e%2e/strings.py", "page/app.js", "/etc/passwd", "app.js/../../strings.py"]
)
def test_only_the_files_of_the_page_are_served(client: TestClient, path: str) -> None:
    assert client.get(f"/{TOKEN}/{path}").status_code in (403, 404)


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get(f"/{TOKEN}/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" and rules["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["referrer-policy"] == "no-referrer"
    assert client.get(f"/{TOKEN}/app.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/wrong/").headers["x-frame-options"] == "DENY"  # refusals are armoured too


def test_a_users_mistake_is_told_in_its_sentence(client: TestClient) -> None:
    answer = client.get(f"/{TOKEN}/refused")
    assert answer.status_code == 400 and json.loads(answer.text) == {"error": "no such picture; choose another"}


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="leave --port away"):
            serve(lambda token, port: guarded([], token, port), taken.getsockname()[1], browser=False)


def test_the_page_names_nothing_elsewhere_and_makes_no_html_of_texts() -> None:
    for path in (Path(__file__).parents[2] / "prep/review/page").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, path.name
        assert not any(word in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")), path.name
