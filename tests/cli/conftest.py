"""A running API and a way to run commands against it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pxed.cli import main
from support.live_api import LiveApi, live_api

Pxed = Callable[..., Result]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LiveApi]:
    with live_api(tmp_path) as running:
        yield running


@pytest.fixture
def pxed(api: LiveApi) -> Pxed:
    """`pxed("job", "list")`: one command against the API, its output not a terminal."""

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main, ["--config", str(api.config), *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
