"""`pxed check`: sentences for people, JSON for programs, the exit code for scripts."""

import json
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pxed.api.control import Status
from pxed.cli import check as module
from pxed.cli import main
from pxed.errors import OperatorError
from pxed.net.diagnose import Finding
from pxed.net.interfaces import InterfaceAddress
from pxed.net.probe import Offer
from support.live_api import LiveApi

ERROR = Finding("error", "tftp-root", "tftp.root /srv does not exist.")
WARNING = Finding("warning", "multicast-route", "There is no multicast route.")


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`check(findings, *arguments)`: the command, on a host with these findings and a silent network."""
    config = tmp_path / "f.toml"
    config.write_text(f'[server]\naddress = "10.78.0.1"\nsocket = "{tmp_path}/s"\n[tftp]\nroot = "/srv"\n')

    def run(findings: list[Finding], *arguments: str) -> Result:
        monkeypatch.setattr(module, "diagnose", lambda config, server_pid: findings)
        return CliRunner().invoke(main, ["--config", str(config), "check", *arguments])

    return run


def test_all_in_order(check: Callable[..., Result]) -> None:
    result = check([], "--no-probe")
    assert (result.exit_code, result.stdout) == (0, "Everything is in order.\n")


def test_sentences_and_exit_code(check: Callable[..., Result]) -> None:
    result = check([ERROR, WARNING], "--no-probe")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "error: tftp.root /srv does not exist.",
        "warning: There is no multicast route.",
        "1 thing must be mended, 1 to look at.",
    ]


def test_warnings_alone_are_no_failure(check: Callable[..., Result]) -> None:
    result = check([WARNING], "--no-probe")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "Nothing must be mended, 1 to look at.")


def test_information_alone_is_all_in_order(check: Callable[..., Result]) -> None:
    result = check([Finding("info", "boot-program", "No boot program for UEFI ARM64.")], "--no-probe")
    assert result.exit_code == 0
    assert result.stdout == "info: No boot program for UEFI ARM64.\nEverything is in order.\n"


def test_json(check: Callable[..., Result]) -> None:
    result = check([ERROR], "--no-probe", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "ok": False,
        "findings": [{"level": "error", "kind": "tftp-root", "text": "tftp.root /srv does not exist."}],
    }
    assert json.loads(check([], "--no-probe", "--json").stdout) == {"ok": True, "findings": []}


def test_mistakes_in_the_config_are_findings(tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text('[server]\nadress = "10.78.0.1"\n')
    result = CliRunner().invoke(main, ["--config", str(config), "check", "--json"])
    assert result.exit_code == 1
    assert [finding["kind"] for finding in json.loads(result.stdout)["findings"]] == ["config", "config"]


def test_network_is_asked_on_served_interfaces(check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        InterfaceAddress(1, "lo", "127.0.0.1", IPv4Network("127.0.0.0/8")),
        InterfaceAddress(2, "eth0", "10.78.0.1", IPv4Network("10.78.0.0/24")),
        InterfaceAddress(3, "eth1", "10.79.0.1", IPv4Network("10.79.0.0/24")),
    ]
    proxy = Offer("eth0", "10.78.0.1", class_id="PXEClient")
    lease = Offer("eth0", "10.78.0.9", address="10.78.0.50")

    def listen(interfaces: list[InterfaceAddress], server_pid: int | None) -> dict[str, set[Offer]]:
        assert [entry.name for entry in interfaces] == ["eth0"]
        return {"eth0": {proxy, lease}}

    monkeypatch.setattr("pxed.net.interfaces.list_addresses", lambda: entries)
    monkeypatch.setattr(module, "listen", listen)
    monkeypatch.setattr(module.igmp, "ask", lambda interfaces: {"eth0"})
    # No pxed runs here, so the proxy offer from this very address is somebody else's.
    result = check([])
    assert result.exit_code == 1
    assert "error: Another proxyDHCP answers on eth0: 10.78.0.1." in result.stdout
    monkeypatch.setattr(module, "_server", lambda config: Status("1", 42, 0.0))
    assert check([]).stdout == "Everything is in order.\n"


def test_network_that_cannot_be_asked(check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def listen(interfaces: object, server_pid: int | None) -> None:
        raise OperatorError("It needs root.")

    monkeypatch.setattr(module, "listen", listen)
    result = check([])
    assert result.exit_code == 0
    assert "warning: Nobody was asked who else answers PXE clients. It needs root.\n" in result.stdout


def test_running_server_is_asked_for_its_pid(api: LiveApi, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    monkeypatch.setattr(module, "diagnose", lambda config, server_pid: seen.append(server_pid) or [])
    result = CliRunner().invoke(main, ["--config", str(api.config), "check", "--no-probe"])
    assert (result.exit_code, seen) == (0, [42])


SHARED = "Ethernet addresses of"


@pytest.mark.parametrize(
    ("sections", "warned"),
    [
        ("", []),
        ('[[mtftp.files]]\nname = "a"\ngroup = "239.255.78.245"\n', []),
        (
            '[[mtftp.files]]\nname = "a"\ngroup = "239.127.78.5"\n',
            [f"mtftp.groups 239.255.78.0/24 has {SHARED} mtftp.files[1].group 239.127.78.5"],
        ),
        (
            '[[mtftp.files]]\nname = "a"\ngroup = "239.127.79.5"\n',
            [f"mtftp.files[1].group 239.127.79.5 has {SHARED} cast.groups 239.255.79.0/24"],
        ),
        (
            '[cast]\ngroups = "239.255.1.0/24"\n',
            [f"iPXE's group 239.255.1.1 has {SHARED} cast.groups 239.255.1.0/24"],
        ),
        (
            'groups = "239.127.1.0/24"\n[mtftp.machines]\n"52:54:00:12:34:56" = false\n',
            [f"mtftp.groups 239.127.1.0/24 has {SHARED} iPXE's group 239.255.1.1"],
        ),
        ('ipxe = "never"\ngroups = "239.255.1.0/24"\n', []),
    ],
)
def test_groups_that_switches_cannot_tell_apart(
    check: Callable[..., Result], tmp_path: Path, sections: str, warned: list[str]
) -> None:
    with (tmp_path / "f.toml").open("a") as config:
        config.write(f"[mtftp]\nenabled = true\n{sections}")
    lines = check([], "--no-probe").stdout.splitlines()[:-1]
    assert [line.split(":")[1].strip() for line in lines] == warned


@pytest.mark.parametrize(
    ("known", "asked", "hears", "warned"),
    [
        (None, ["eth0", "eth1"], {"eth0", "eth1"}, []),
        (None, ["eth0", "eth1"], {"eth1"}, ["eth0"]),
        ({"eth0": 17.0, "eth1": None}, ["eth1"], set(), ["eth1"]),
        ({"eth0": 17.0, "eth1": 261.0}, ["eth1"], {"eth1"}, []),
        ({"eth0": 0.0, "eth1": 260.0}, [], set(), []),
    ],
)
def test_a_querier_is_asked_for_where_the_server_has_heard_none(
    check: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    known: dict[str, float | None] | None,
    asked: list[str],
    hears: set[str],
    warned: list[str],
) -> None:
    entries = [
        InterfaceAddress(number, f"eth{number}", f"10.7{number}.0.1", IPv4Network(f"10.7{number}.0.0/24"))
        for number in (0, 1)
    ]
    seen: list[str] = []

    def ask(interfaces: list[InterfaceAddress]) -> set[str]:
        seen.extend(entry.name for entry in interfaces)
        return hears

    server = None if known is None else Status("1", 42, 0.0, queriers=known)
    monkeypatch.setattr(module, "_server", lambda config: server)
    monkeypatch.setattr(module, "served", lambda addresses: entries)
    monkeypatch.setattr(module, "listen", lambda interfaces, server_pid: {})
    monkeypatch.setattr(module.igmp, "ask", ask)
    said = check([]).stdout
    assert seen == asked
    assert [name for name in ("eth0", "eth1") if f"No IGMP querier is heard on {name}" in said] == warned


def test_a_querier_that_cannot_be_asked_for(check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(interfaces: object) -> set[str]:
        raise OperatorError("It needs root.")

    entry = InterfaceAddress(2, "eth0", "10.78.0.1", IPv4Network("10.78.0.0/24"))
    monkeypatch.setattr(module, "served", lambda addresses: [entry])
    monkeypatch.setattr(module, "listen", lambda interfaces, server_pid: {})
    monkeypatch.setattr(module.igmp, "ask", ask)
    result = check([])
    assert result.exit_code == 0
    assert "warning: Nobody knows whether there is an IGMP querier. It needs root.\n" in result.stdout
