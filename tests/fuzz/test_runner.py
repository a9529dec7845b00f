"""What `tools/test --fuzz` understands, and what it reads in libFuzzer's lines."""

import pytest

import run_fuzzers
from fuzz.targets import TARGETS


def test_seconds_and_targets() -> None:
    assert run_fuzzers.chosen([]) == (60, list(TARGETS))
    assert run_fuzzers.chosen(["600", "dhcp", "tftp"]) == (600, ["dhcp", "tftp"])
    assert run_fuzzers.chosen(["http"]) == (60, ["http"])


def test_a_target_that_is_none_names_those_that_are() -> None:
    with pytest.raises(SystemExit, match=r"(?s)smtp is no target.*dhcp .*config "):
        run_fuzzers.chosen(["smtp"])


def test_figures_of_a_status_line() -> None:
    line = "#17011\tDONE   cov: 895 ft: 2209 corp: 92/32Kb lim: 527 exec/s: 810 rss: 708Mb\n"
    match = run_fuzzers._STATUS.match(line)
    assert match and match.groups() == ("17011", "895", "708")
