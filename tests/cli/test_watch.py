"""`pxed job watch`: follows jobs to their end, in a pipe, for programs and on a terminal."""

import io
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from click.testing import Result

from pxed.cli import output
from pxed.types import Event, JobState
from support.live_api import LiveApi

Pxed = Callable[..., Result]
Watch = Callable[..., "Future[Result]"]
MAC = "52:54:00:12:34:56"
LIMIT = 60.0


@pytest.fixture
def watch(pxed: Pxed, api: LiveApi) -> Iterator[Watch]:
    """Starts `pxed job watch …` beside the test, returns when it follows."""
    assert pxed("machine", "add", "--mac", MAC, "--name", "desk-1").exit_code == 0
    assert pxed("job", "add", "--machine", "1", "--image", "debian").exit_code == 0
    with ThreadPoolExecutor() as pool:

        def start(*arguments: str) -> "Future[Result]":
            running = pool.submit(pxed, "job", "watch", *arguments)
            api.wait_for_watcher()
            return running

        yield start


def restore(api: LiveApi, last: JobState, reason: str = "") -> None:
    """A job's way, as the server publishes it."""
    api.do(api.control.change_job, 1, state=JobState.RUNNING, step="claim")
    api.do(api.control.publish, Event(api.control.now, MAC, "claim", "The agent claimed the job.", 1, 1))
    api.do(api.control.publish, Event(api.control.now, MAC, "seen", "Something of another job.", 1, 2))
    for percent in (1.0, 2.0, 55.0):
        api.do(api.control.change_job, 1, state=JobState.RUNNING, step="restore", percent=percent, rate=100 * 2.0**20)
    api.do(api.control.change_job, 1, state=last, step="verify", reason=reason, rate=0.0)


def test_lines_in_a_pipe(watch: Watch, api: LiveApi) -> None:
    running = watch("1")
    restore(api, JobState.SUCCEEDED)
    result = running.result(LIMIT)
    assert result.exit_code == 0
    assert [line.split("\t")[1:] for line in result.stdout.splitlines()] == [
        ["desk-1", "pending"],
        ["desk-1", "running claim"],
        ["desk-1", "The agent claimed the job."],
        ["desk-1", "running restore 1% 100.0 MiB/s"],
        ["desk-1", "running restore 55% 100.0 MiB/s"],
        ["desk-1", "succeeded"],
    ]


def test_unfinished_jobs_when_none_is_named_and_failure_in_the_exit_code(watch: Watch, api: LiveApi) -> None:
    running = watch()
    restore(api, JobState.FAILED, "chunk 17 is damaged")
    result = running.result(LIMIT)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].split("\t")[1:] == ["desk-1", "failed at verify: chunk 17 is damaged"]


def test_json_lines(watch: Watch, api: LiveApi) -> None:
    running = watch("1", "--json")
    restore(api, JobState.CANCELLED)
    result = running.result(LIMIT)
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[-1]["job"]["state"] == "cancelled"
    assert all(set(line) <= {"job", "event"} for line in lines)


def test_bars_on_a_terminal(watch: Watch, api: LiveApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxed.cli.watch.is_terminal", lambda: True)
    running = watch("1")
    restore(api, JobState.SUCCEEDED)
    result = running.result(LIMIT)
    assert result.exit_code == 0
    assert "1 desk-1" in result.stdout


def test_nothing_to_watch_ends_at_once(pxed: Pxed) -> None:
    assert pxed("job", "watch").exit_code == 0


def test_unknown_job(pxed: Pxed) -> None:
    result = pxed("job", "watch", "7")
    assert (result.exit_code, result.stderr) == (1, "pxed: There is no job 7.\n")


def test_server_that_ends_meanwhile(watch: Watch, api: LiveApi) -> None:
    running = watch("1")
    api.do(api._stop.set)
    result = running.result(LIMIT)
    assert result.exit_code == 1
    assert result.stderr == "pxed: The server ended before the jobs did; they go on when it is started again.\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_table_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    output.table(("ID", "NAME"), [(1, "a[b]"), (2, None)])
    text = out.getvalue()
    assert "a[b]" in text
    assert "\t" not in text


HOSTILE = "\x1b[2J\x9b31m\x7f\u202egpj"
ESCAPED = r"\x1b[2J\x9b31m\x7f\u202egpj"


@pytest.mark.parametrize("person", [True, False])
def test_what_machines_say_does_not_play_with_the_terminal(person: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal() if person else io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    output.table(("NAME",), [(HOSTILE,)])
    output.fields([("name", HOSTILE)])
    assert out.getvalue().count(ESCAPED) == 2
    output.print_json({"name": HOSTILE})
    text = re.sub(r"\x1b\[\d*m", "", out.getvalue())  # the colours are ours
    assert all(line.isprintable() for line in text.replace("\t", " ").split("\n"))
    assert json.loads("{" + text.partition("{")[2])["name"] == HOSTILE


@pytest.mark.parametrize("person", [True, False])
def test_events_do_not_play_with_the_terminal(
    person: bool, watch: Watch, api: LiveApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pxed.cli.watch.is_terminal", lambda: person)
    running = watch("1")
    api.do(api.control.publish, Event(1.0, MAC, "seen", f"{HOSTILE} was seen.", 1, 1))
    api.do(api.control.change_job, 1, state=JobState.FAILED, reason=HOSTILE)
    shown = running.result(LIMIT).stdout
    assert f"{ESCAPED} was seen." in shown
    assert "\x9b" not in shown and "\u202e" not in shown


def test_empty_table_for_a_person(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("pxed.cli.output.is_terminal", lambda: True)
    output.table(("ID",), [], empty="There is no job.")
    assert capsys.readouterr() == ("", "There is no job.\n")


def test_units() -> None:
    assert [output.size(n) for n in (0, 1023, 1024, 5 << 20, 3 << 30, 7 << 40)] == [
        *("0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 GiB", "7.0 TiB")
    ]
    assert [output.duration(s) for s in (0.44, 59, 185, 7800)] == ["0.4 s", "59 s", "3 min 05 s", "2 h 10 min"]
    assert (output.rate(0), output.rate(1 << 20), output.when(0), output.ago(0, 5), output.ago(3, 5)) == (
        *("", "1.0 MiB/s", "", "", "2.0 s ago"),
    )


def test_progress_in_a_pipe_ends_with_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("import") as show:
        for done in range(11):
            show(done * 1024, 10240)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "import: 100% (10.0 KiB of 10.0 KiB)"


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    with output.progress("import", unit="chunks") as show:
        show(5, 10)
    assert "import" in err.getvalue()
    assert "5/10" in err.getvalue()
