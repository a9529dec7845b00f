"""Logging comes out in the form that its reader needs, from us and from libraries alike."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from pxed import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


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
