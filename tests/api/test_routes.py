"""The REST routes against a fake server: shapes, statuses, and errors as sentences."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from pxed.api.control import Image, Status
from pxed.api.routes import create_app
from pxed.types import Event, Job, JobState, Machine, Traffic
from support.control import IMAGE, FakeControl

MAC = "52:54:00:12:34:56"


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def client(control: FakeControl) -> Iterator[TestClient[Litestar]]:
    with TestClient(create_app(control), raise_server_exceptions=False) as client:
        yield client


def read(answer: Any, kind: Any) -> Any:
    assert answer.is_success, answer.text
    assert answer.headers["content-type"] == "application/json"
    return msgspec.json.decode(answer.content, type=kind)


def test_machine_from_added_to_removed(client: TestClient[Litestar]) -> None:
    machine = read(client.post("/machines", json={"mac": MAC, "name": "desk-1"}), Machine)
    assert (machine.id, machine.macs, machine.name) == (1, (MAC,), "desk-1")
    assert read(client.get("/machines"), list[Machine]) == [machine]
    for key in ("1", MAC, "desk-1"):
        assert read(client.get(f"/machines/{key}"), Machine) == machine
    assert [e.text for e in read(client.get(f"/machines/{MAC}/timeline"), list[Event])] == ["The machine was added."]
    assert client.delete(f"/machines/{MAC}").status_code == 204
    assert read(client.get("/machines"), list[Machine]) == []


def test_job_from_created_to_retried(client: TestClient[Litestar]) -> None:
    client.post("/machines", json={"mac": MAC})
    job = read(client.post("/jobs", json={"machine": MAC, "image": "debian", "debug": True}), Job)
    assert (job.state, job.image, job.debug) == (JobState.PENDING, IMAGE.id, True)
    assert read(client.get("/jobs"), list[Job]) == [job]
    assert read(client.get("/jobs/1"), Job) == job
    assert read(client.post("/jobs/1/cancel"), Job).state == JobState.CANCELLED
    assert read(client.post("/jobs/1/retry"), Job).generation == 2


def test_metrics(client: TestClient[Litestar]) -> None:
    answer = client.get("/metrics")
    assert (answer.status_code, answer.content) == (200, b"pxed_machines 1\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_traffic(client: TestClient[Litestar]) -> None:
    assert read(client.get("/traffic"), Traffic) == Traffic(1.0)
    assert client.get("/traffic", params={"limit": 5}).status_code == 200
    assert client.get("/traffic", params={"limit": 5000}).status_code == 400
    assert client.get("/traffic", params={"limit": -1}).status_code == 400


def test_images(client: TestClient[Litestar]) -> None:
    assert read(client.get("/images"), list[Image]) == [IMAGE]
    assert read(client.get("/images/debian"), Image) == IMAGE
    assert client.delete("/images/debian").status_code == 204
    assert read(client.get("/images"), list[Image]) == []


def test_status_and_reload(client: TestClient[Litestar]) -> None:
    assert read(client.get("/status"), Status).pid == 42
    assert client.post("/reload").json() == {"changed": ["log.level"], "restart": []}


def test_openapi_names_every_route(client: TestClient[Litestar]) -> None:
    schema = client.get("/schema").json()
    assert schema["info"]["title"] == "pxed"
    wanted = {
        "/machines": {"get", "post"},
        "/machines/{key}": {"get", "delete"},
        "/machines/{key}/timeline": {"get"},
        "/jobs": {"get", "post"},
        "/jobs/{job_id}": {"get"},
        "/jobs/{job_id}/cancel": {"post"},
        "/jobs/{job_id}/retry": {"post"},
        "/images": {"get"},
        "/images/{key}": {"get", "delete"},
        "/sessions": {"get"},
        "/sessions/{key}": {"get"},
        "/sessions/{key}/start": {"post"},
        "/status": {"get"},
        "/metrics": {"get"},
        "/traffic": {"get"},
        "/reload": {"post"},
        "/events": {"get"},
    }
    methods = {"get", "post", "put", "delete"}
    assert {path: set(item) & methods for path, item in schema["paths"].items()} == wanted
    assert all(item[m]["description"] for item in schema["paths"].values() for m in set(item) & methods)


ERRORS = {
    "no such machine": ("GET", "/machines/nobody", None, 404, "No machine is known as nobody."),
    "no such job": ("GET", "/jobs/7", None, 404, "There is no job 7."),
    "no such image": ("DELETE", "/images/x", None, 404, "There is no image x."),
    "no such path": ("GET", "/coffee", None, 404, "There is no GET /coffee here."),
    "wrong method": ("PUT", "/jobs", None, 405, "Method Not Allowed"),
    "job id that is none": ("GET", "/jobs/one", None, 404, "There is no GET /jobs/one here."),
    "job for an unknown machine": (
        *("POST", "/jobs", {"machine": "x", "image": "debian"}),
        *(404, "No machine is known as x."),
    ),
    "job without an image": ("POST", "/jobs", {"machine": "x"}, 400, "Object missing required field `image`"),
    "unknown field": (
        *("POST", "/machines", {"mac": MAC, "colour": "red"}),
        *(400, "Object contains unknown field `colour`"),
    ),
    "wrong type": ("POST", "/machines", {"mac": 3}, 400, "mac: Expected `str`, got `int`"),
    "name that no URL could hold": (
        *("POST", "/machines", {"mac": MAC, "name": "a/b"}),
        *(400, "name: Expected `str` matching regex '^[^/]*$'"),
    ),
    "machine without an identity": ("POST", "/machines", {}, 400, "A machine needs a MAC, a UUID or a serial."),
}


@pytest.mark.parametrize(("method", "path", "body", "status", "error"), ERRORS.values(), ids=ERRORS)
def test_error(client: TestClient[Litestar], method: str, path: str, body: object, status: int, error: str) -> None:
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_body_that_is_not_json(client: TestClient[Litestar]) -> None:
    answer = client.post("/jobs", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "truncated" in answer.json()["error"]


def test_refused_is_a_conflict(client: TestClient[Litestar]) -> None:
    client.post("/machines", json={"mac": MAC})
    client.post("/jobs", json={"machine": MAC, "image": "debian"})
    answer = client.delete("/machines/1")
    assert (answer.status_code, answer.json()) == (409, {"error": "The machine has an unfinished job."})


def test_reload_with_a_mistake_says_it(client: TestClient[Litestar], control: FakeControl) -> None:
    control.broken_config = True
    answer = client.post("/reload")
    assert (answer.status_code, answer.json()["error"]) == (400, "f.toml:1: key `x`: expected y")


def test_bug_is_logged_and_said_to_be_ours(
    client: TestClient[Litestar],
    control: FakeControl,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(control, "status", broken)
    answer = client.get("/status")
    assert answer.status_code == 500
    assert answer.json()["error"] == "The server failed on this request (ZeroDivisionError: by nothing); see its log."
    out = capsys.readouterr()
    assert "Traceback" in out.out + out.err
