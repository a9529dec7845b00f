"""Logging comes out in the form that its reader needs, from us and from libraries alike."""

import fcntl
import io
import json
import logging
import os
import re
import sys

import pytest
import structlog

from pxed import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_lines_when_nobody_looks() -> None:
    out = io.StringIO()
    log.set_up(stream=out)
    structlog.get_logger().info("job failed", job=3)
    logging.getLogger("library").warning("careful with %s", "this")
    ours, theirs = (json.loads(line) for line in out.getvalue().splitlines())
    assert (ours["event"], ours["job"], ours["level"]) == ("job failed", 3, "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("careful with this", "library", "warning")
    assert ours["timestamp"].endswith("Z")


def test_human_on_a_terminal() -> None:
    out = Terminal()
    log.set_up(stream=out)
    structlog.get_logger().info("job failed", job=3)
    assert "job failed" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_form_can_be_forced() -> None:
    out = Terminal()
    log.set_up(form="json", stream=out)
    structlog.get_logger().info("x")
    assert json.loads(out.getvalue())["event"] == "x"
    plain = io.StringIO()
    log.set_up(form="human", stream=plain)
    structlog.get_logger().info("x", a=1)
    assert "a=1" in plain.getvalue()


def test_level_can_change_under_a_logger_made_before() -> None:
    out = io.StringIO()
    logger = structlog.get_logger()
    log.set_up("warning", stream=out)
    logger.info("not this")
    log.set_up("debug", stream=out)
    logger.debug("but this")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["but this"]


def test_chatty_libraries_are_heard_from_warning_on() -> None:
    out = io.StringIO()
    log.set_up("info", stream=out)
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").error("broken")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["broken"]


def test_exceptions_are_in_the_line() -> None:
    out = io.StringIO()
    log.set_up(stream=out)
    try:
        raise ValueError("the cause")
    except ValueError:
        structlog.get_logger().exception("it broke")
        logging.getLogger("library").exception("it broke too")
    ours, theirs = (json.loads(line) for line in out.getvalue().splitlines())
    assert "ValueError: the cause" in ours["exception"]
    assert "ValueError: the cause" in theirs["exception"]


class Sick(io.StringIO):
    """A stream on a disk that is full for a while."""

    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.mark.parametrize("form", ["json", "human"])
def test_stream_that_fails_hurts_nobody_and_losses_are_told_once(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = Sick()
    log.set_up(form=form, stream=out)  # type: ignore[arg-type]
    ours, theirs = structlog.get_logger(), logging.getLogger("library")
    ours.info("one")
    out.full = True
    ours.info("two")
    theirs.error("three")
    log.set_up(form=form, stream=out)  # type: ignore[arg-type]  # a reload forgets no losses
    ours.info("four")
    out.full = False
    theirs.error("five")
    ours.info("six")
    first, notice, *rest = out.getvalue().splitlines()
    assert "one" in first
    assert "log lines could not be written" in notice
    assert (json.loads(notice)["lost"] if form == "json" else "lost=3" in notice) in (3, True)
    assert [word for line in rest for word in ("five", "six", "lost") if word in line] == ["five", "six"]
    assert capsys.readouterr() == ("", "")


def test_pipe_whose_reader_has_gone() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as out:
        log.set_up(stream=out)
        os.close(reader)
        structlog.get_logger().info("one")
        logging.getLogger("library").error("two")
    # The end of `with` flushed: nothing was left in the stream that would fail there.


def test_line_that_was_cut_off_does_not_spoil_the_next() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with os.fdopen(writer, "w") as out, os.fdopen(reader, "rb") as pipe:
        log.set_up(stream=out)
        structlog.get_logger().info("x" * 10_000)
        cut = pipe.read1(4096)
        assert b"x" * 1000 in cut
        structlog.get_logger().info("next")
        end, notice, line = pipe.read1(4096).splitlines()
    assert end == b""
    assert json.loads(notice)["lost"] == 1
    assert json.loads(line)["event"] == "next"


def test_without_stderr_there_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    log.set_up()
    structlog.get_logger().info("one")
    logging.getLogger("library").error("two")


def test_wrong_line_of_a_library_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    log.set_up(stream=out)
    logging.getLogger("library").error("%d of it", "much")
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["line"] == "%d of it"
    assert "TypeError" in json.loads(line)["error"]
    assert capsys.readouterr() == ("", "")


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\n12:00:00 [info] all is well \u202egpj.exe\u2066"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\n12:00:00 [info] all is well \u202egpj.exe\u2066"


def test_names_from_the_network_do_not_play_with_the_terminal() -> None:
    out = Terminal()
    log.set_up(form="human", stream=out)
    ours, theirs = structlog.get_logger(), logging.getLogger("library")
    ours.info("tftp not found", name=HOSTILE, peer="10.0.0.7")
    ours.info(HOSTILE)
    ours.info("several", names=[HOSTILE])
    theirs.warning("refused: %s", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        ours.exception("it broke", name=HOSTILE)
        theirs.exception("it broke too: %s", HOSTILE)
    text = re.sub(r"\x1b\[\d*m", "", out.getvalue())  # the colours are ours
    assert all(line.isprintable() for line in text.splitlines())
    assert text.count(SHOWN) == 6  # nothing is lost
    assert sum(line.startswith("12:00:00") for line in text.splitlines()) == 0  # no line is forged
    assert "\n        raise ValueError(HOSTILE)\n" in text  # a traceback keeps its lines


def test_json_lines_hold_no_control_characters() -> None:
    out = io.StringIO()
    log.set_up(form="json", stream=out)
    structlog.get_logger().info("tftp not found", name=HOSTILE)
    (line,) = out.getvalue().splitlines()
    assert line.isprintable()
    assert json.loads(line)["name"] == HOSTILE
