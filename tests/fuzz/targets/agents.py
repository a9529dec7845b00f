"""What agents send to the server, and what a server answers to an agent: any JSON is taken, refused or called odd."""

import atexit
import io
import sqlite3
from typing import Any, cast

import msgspec

from fuzz.source import Source
from pxed.agent import server as agent_side
from pxed.errors import PeerError
from pxed.net.message import Request
from pxed.service.http import MachineHttp
from pxed.service.image_http import RangesBody
from pxed.store import records
from pxed.types import (
    ClaimAnswer,
    ClaimRequest,
    FinishAnswer,
    FinishRequest,
    JobState,
    Ranges,
    Report,
    ReportAnswer,
)
from support.work import Driver, identity_of

TO_SERVER, TO_AGENT = range(2)
CALLS = ("claim", "report", "finish", "image", "other", "join", "ranges")
CLAIM, REPORT, FINISH, IMAGE, OTHER, JOIN, RANGES = range(7)
END = b"\xf5"  # between two calls; no text has it
WORDS = (
    b'{"token":"', b'token-1', b'"agent":"a"', b'"identity":{"mac":"52:54:00:00:00:01"}', b'"disks":[{"path":"',
    b'"size":', b'{"step":"restore"', b'"percent":', b'"rate":', b'"done":', b'1e308', b'1e400', b'"message":"',
    b'{"ok":true', b"\\ud800", b"\\u0000", b"99999999999999999999", b"-1", b"HTTP/1.1 200 OK\r\n", b"Content-Length: ",
    b"\r\n\r\n", b"Content-Range: bytes 0-9/", b"Transfer-Encoding: chunked\r\n", b'{"error":"',
)  # fmt: skip


def seeds() -> dict[str, bytes]:
    """A job from claim to finish, odd bodies; answers whole, cut, chunked and foreign."""
    claim = msgspec.json.encode(ClaimRequest("token-1", "a", identity_of(1), "uefi"))
    report, finish = msgspec.json.encode(Report("restore", 50.0, 5, 10, 1e6, "half")), b'{"ok":true,"step":"finish"}'
    bad = b'{"step":"\\ud800","percent":1e400,"done":99999999999999999999,"message":"a\\u0000\\n\\u202e"}'
    lost = b'{"ok":false,"step":"x","reason":"\\ud800"}'
    conversations = {
        "job": ((CLAIM, claim), (REPORT, report), (FINISH, finish)),
        "odd": ((CLAIM, claim), (REPORT, bad), (FINISH, lost)),
        "again": ((CLAIM, claim), (CLAIM, claim), (FINISH, finish), (FINISH, finish)),
        "none": ((REPORT, b"{}"), (IMAGE, b"manifest"), (OTHER, b"\xff")),
        "join": ((JOIN, b'{"image":"' + b"ab" * 32 + b'","receiver":"0123456789abcdef","name":"pc"}'),),
        "ranges": (
            (RANGES, b'{"ranges":[[0,1],[1,5],[7,1000]]}'),
            (RANGES, b'{"ranges":[[5,1],[-1,99999999999999999999]]}'),
        ),
        "deep": ((CLAIM, b'{"x":' + b"[" * 3000), (REPORT, b"[" * 3000)),
    }
    found = {
        name: bytes((TO_SERVER,)) + END.join(bytes((call,)) + body for call, body in calls)
        for name, calls in conversations.items()
    }
    answer = msgspec.json.encode(ClaimAnswer(7, "restore", "ab" * 32, "demo", "r4n"))
    bodies = {0: answer, 1: msgspec.json.encode(ReportAnswer("stop")), 2: msgspec.json.encode(FinishAnswer())}
    for call, body in bodies.items():
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        found[f"answer-{call}"] = bytes((TO_AGENT, call)) + head + body
    ranged = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/99\r\nContent-Length: 10\r\n\r\n0123456789"
    found["range"] = bytes((TO_AGENT, 4)) + ranged
    found["refused"] = bytes((TO_AGENT, 0)) + b'HTTP/1.1 409 Conflict\r\nContent-Length: 15\r\n\r\n{"error":"gone"}'
    found["chunked"] = (
        bytes((TO_AGENT, 3)) + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    found["cut"] = bytes((TO_AGENT, 3)) + b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nabc"
    return found


def one(data: bytes) -> None:
    """A few calls to a server, or one answer to an agent."""
    source = Source(data)
    if source.pick((TO_SERVER, TO_AGENT)) == TO_SERVER:
        _calls(source.rest())
    else:
        _answer(source)


# -- the server's side ----------------------------------------------------------------------------------------------


class Transactions:
    """The server's registry of machines and jobs without its database; a machine and its job are there."""

    def __init__(self) -> None:
        self.driver = Driver()
        machine = self.driver.machine(1)
        self.driver.job(machine)
        self.driver.ticket(1)
        self.registry = self.driver.registry

    async def claim(self, request: ClaimRequest, now: float) -> ClaimAnswer:
        answer, change = self.registry.claim(request, now)
        self.driver.take(change)
        return answer

    async def report(self, run: str, report: Report, now: float) -> ReportAnswer:
        answer, change = self.registry.report(run, report, now)
        self.driver.take(change)
        return answer

    async def finish(self, run: str, request: FinishRequest, now: float) -> FinishAnswer:
        answer, change = self.registry.finish(run, request, now)
        self.driver.take(change)
        return answer

    def image_for_run(self, run: str) -> str | None:
        return self.registry.image_for_run(run)


def _calls(data: bytes) -> None:
    desk = Transactions()
    names: Any = None
    library: Any = None
    http_server = MachineHttp(("10.78.0.1",), 80, names, cast(Any, desk), library, clock=lambda: desk.driver.now)
    for part in data.split(END)[:20]:
        call, body = CALLS[(part or b"\0")[0] % len(CALLS)], part[1:]
        run = next((record.run for record in desk.registry if record.run), "unknown")
        if call == "ranges":
            _ranges(body)
            continue
        path = {"image": f"/pxed/image/{body.decode('latin-1')}", "join": "/pxed/cast/join"}.get(
            call, f"/pxed/agent/{call}"
        )
        headers = {"authorization": f"Bearer {run}"}
        peer, local = ("10.78.0.50", 40000), ("10.78.0.1", 80)
        response = _finished(http_server._handle(Request("POST", path, "", headers, body, peer, local)))
        assert response.status in (200, 400, 401, 403, 404, 405, 409), response.status
        assert isinstance(msgspec.json.decode(response.body.segments(0, response.body.size)), dict)
        desk.driver.now += 1
        _check_storable(desk.driver)


class _Data:
    """An image's data of 1,000 bytes."""

    size = 1000

    def segments(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        assert 0 <= start < stop <= self.size
        return [(0, start, stop - start)]


def _ranges(body: bytes) -> None:
    """What is taken of a request for ranges lies within the data, and is as long as it is said to be."""
    try:
        made = RangesBody(cast(Any, _Data()), msgspec.json.decode(body, type=Ranges).ranges)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, PeerError):
        return
    assert sum(length for _, _, length in made.segments(0, made.size)) == made.size <= _Data.size


def _finished(waiting: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the handler waited")


_database: list[sqlite3.Connection] = []


def _check_storable(driver: Driver) -> None:
    """Everything that is kept can be stored, and shown as JSON and on one line."""
    if not _database:
        _database.append(sqlite3.connect(":memory:"))
        atexit.register(_database[0].close)
    rows = [records.job_row(record) for record in driver.registry]
    rows += [records.machine_row(machine) for machine in driver.registry.machines]
    for row in rows:
        _database[0].execute(f"SELECT {','.join('?' * len(row))}", list(row.values()))
    for record in driver.registry:
        msgspec.json.encode(record.job)
        assert 0 <= record.job.percent <= 100 and isinstance(record.job.state, JobState)
        assert record.job.reason.isprintable() and record.job.step.isprintable()
    for event in driver.events:
        msgspec.json.encode(event)
        assert event.text.isprintable() and len(event.text) < 2000
    driver.events.clear()


# -- the agent's side -----------------------------------------------------------------------------------------------


class Wire:
    """A socket on which a server's whole answer lies ready."""

    def __init__(self, answer: bytes) -> None:
        self._answer = io.BytesIO(answer)

    def makefile(self, *_: Any) -> io.BytesIO:
        return self._answer

    def sendall(self, data: Any) -> None:
        """A request goes out."""

    def close(self) -> None:
        """Nothing to release."""


def _answer(source: Source) -> None:
    call = source.pick(range(5))
    answer = source.rest()
    connection = agent_side.Connection("http://10.78.0.1", "r4n")
    connection._http.connect = lambda: setattr(connection._http, "sock", Wire(answer))  # type: ignore[method-assign]
    try:
        if call == 0:
            claimed = connection.claim(ClaimRequest("t", "a", identity_of(1)))
            connection.close()
            # The next question is made of the answer.
            agent_side.Connection("http://10.78.0.1", claimed.run)
            connection.fetch(f"pxed/image/{claimed.image}/manifest")
        elif call == 1:
            connection.report(Report("restore"))
        elif call == 2:
            connection.finish(FinishRequest(True, "finish"))
        elif call == 3:
            connection.fetch("pxed/image/x/manifest")
        else:
            into = bytearray(10)
            connection.fetch_range("pxed/image/x/data", 0, memoryview(into))
    except (agent_side.Unreachable, agent_side.Refused) as error:
        assert str(error)
