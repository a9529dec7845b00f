"""A site for each test: a segment with the site's DHCP server and a pxed server, machines to power on."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import demo_disk, environment
from lab.network import Segment, SiteDhcp
from lab.server import Server
from support.site import IMAGE_MIB, PAYLOAD_MIB, Site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here boots virtual machines, as root."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")
            item.add_marker("root")


@pytest.fixture(scope="session")
def built_environment() -> Path:
    """The imaging environment, built from this tree."""
    return environment.ensure()


@pytest.fixture(scope="session")
def demo_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bootable disk of our own, raw."""
    image = tmp_path_factory.mktemp("image") / "demo.raw"
    demo_disk.make(image, size_mib=IMAGE_MIB, payload_mib=PAYLOAD_MIB, cache=environment.CACHE)
    return image


@pytest.fixture(scope="session")
def image_store(demo_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose image store holds the disk as `demo`: imported once, copied for each test."""
    directory = tmp_path_factory.mktemp("store")
    config = directory / "pxed.toml"
    config.write_text(
        f'[server]\naddress = "127.0.0.1"\nstate_dir = "{directory}/state"\n[tftp]\nroot = "{directory}"\n'
    )
    subprocess.run([environment.PXED, "--config", config, "image", "import", demo_image, "--name", "demo"], check=True)
    return directory / "state"


@pytest.fixture
def site(
    tmp_path: Path, built_environment: Path, image_store: Path, demo_image: Path, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """A running site; its consoles and logs are shown when the test fails, and kept nowhere."""
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, tmp_path, ignore_errors=True)  # disks are large
        segment = stack.enter_context(Segment())
        host = segment.host("pxed", "10.78.0.1/24")
        stack.callback(
            SiteDhcp(segment.host("site", "10.78.0.2/24"), tmp_path / "site", "10.78.0.50", "10.78.0.99").close
        )
        shutil.copytree(image_store, tmp_path / "state")
        marker = request.node.get_closest_marker("pxed_config")
        server = Server(host, tmp_path, "10.78.0.1", built_environment, marker.args[0] if marker else "")
        stack.callback(server.close)
        server.start()
        site = Site(segment, server, tmp_path, demo_image, stack)
        yield site
        site.show()  # pytest shows it when the test failed
