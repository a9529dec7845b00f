"""Values of options that nobody can measure with are told before anything is started."""

import pytest
from click.testing import CliRunner

from pxed.cli import main
from pxed.cli.bench.shared import running
from pxed.errors import OperatorError


@pytest.mark.parametrize("command", ["tftp", "http", "dhcp"])
@pytest.mark.parametrize("patience", ["nan", "inf", "0", "-1"])
def test_patience(command: str, patience: str) -> None:
    done = CliRunner().invoke(main, ["bench", command, "--lab", "--patience", patience])
    assert (done.exit_code, "'--patience'" in done.stderr) == (2, True), done.output


def test_server_by_its_name() -> None:
    assert running("localhost", 69, "f", None).address == "127.0.0.1"


@pytest.mark.parametrize("name", ["::1", "a..b", "x" * 64])
def test_server_that_has_no_address(name: str) -> None:
    with pytest.raises(OperatorError, match="is neither an IPv4 address nor a host that has one"):
        running(name, 69, "f", None)
