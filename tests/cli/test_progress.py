"""Progress where there is no terminal."""

import pytest

from pxed.cli import output


def test_a_line_is_not_said_twice_in_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "PLAIN_PROGRESS_SECONDS", 0.0)
    with output.progress("demo") as show:
        for done in (0, 0, 1024, 1024, 4096, 4096):
            show(done, 4096)
    assert capsys.readouterr().err.splitlines() == [
        "demo: 0% (0 B of 4.0 KiB)",
        "demo: 25% (1.0 KiB of 4.0 KiB)",
        "demo: 100% (4.0 KiB of 4.0 KiB)",
    ]


def test_news_within_a_second_waits_unless_it_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("work", unit="parts") as show:
        for done in (1, 2, 3):
            show(done, 3)
    assert capsys.readouterr().err.splitlines() == ["work: 33% (1 of 3 parts)", "work: 100% (3 of 3 parts)"]
