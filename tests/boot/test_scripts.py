"""iPXE scripts, the kernel's command line, and the name that a check is asked by."""

import re

import pytest

from pxed.boot import scripts
from pxed.types import Identity

BASE = "http://10.78.0.1"

# Commands of Debian 12's iPXE (1.0.0+git-20190125), as its binaries list them, and the options used here.
COMMANDS = {
    "boot": set(),
    "chain": {"--replace", "--autofree"},
    "clear": set(),
    "echo": set(),
    "exit": set(),
    "goto": set(),
    "imgfree": set(),
    "inc": set(),
    "initrd": {"--name"},
    "iseq": set(),
    "kernel": set(),
    "sanboot": {"--no-describe", "--drive"},
    "sleep": set(),
}
ALL = {
    "first": scripts.first_script(BASE),
    "first over TFTP": scripts.first_script("tftp://10.78.0.1"),
    "work": scripts.work_script(BASE, "pxed.server=http://10.78.0.1 pxed.token=t"),
    "work by multicast": scripts.work_script(BASE, "pxed.token=t", "mtftp://10.78.0.1:1760"),
    "local": scripts.local_script("no work"),
    "hold": scripts.hold_script(BASE, "wait"),
}


def lines(script: bytes) -> list[str]:
    return script.decode("ascii").splitlines()


@pytest.mark.parametrize("script", ALL.values(), ids=ALL)
def test_is_a_script_of_known_commands(script: bytes) -> None:
    assert lines(script)[0] == "#!ipxe"
    assert script.endswith(b"\n")
    for line in lines(script)[1:]:
        if line.startswith(":"):
            continue
        for command in re.split(r" (?:&&|\|\|)(?: |$)", line):
            if command:
                name, *words = command.split()
                options = {word for word in words if word.startswith("--")} if name != "echo" else set()
                assert options <= COMMANDS[name], line


@pytest.mark.parametrize("script", ALL.values(), ids=ALL)
def test_every_goto_has_its_label_once(script: bytes) -> None:
    labels = [line[1:] for line in lines(script) if line.startswith(":")]
    assert len(labels) == len(set(labels))
    assert set(re.findall(rb"goto (\w+)", script)) <= {label.encode() for label in labels}


@pytest.mark.parametrize("script", ALL.values(), ids=ALL)
def test_a_command_that_may_fail_does_not_end_the_script(script: bytes) -> None:
    for line in lines(script)[1:]:
        if line.split()[0] in {"chain", "kernel", "initrd", "boot", "iseq", "sanboot", "clear"}:
            assert "||" in line, line


@pytest.mark.parametrize("script", ALL.values(), ids=ALL)
def test_ends_at_the_local_disk(script: bytes) -> None:
    """BIOS by its first drive; UEFI goes on in its boot order, for which it must see a failure."""
    assert lines(script)[-2:] == ["iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||", "exit 1"]


@pytest.mark.parametrize("name", ["first", "work", "hold"])
def test_retries_have_a_limit(name: str) -> None:
    found = lines(ALL[name])
    at = found.index(":again")
    assert found[at + 1 : at + 3] == ["inc pxed-tries", f"iseq ${{pxed-tries}} {scripts.TRIES} && goto local ||"]
    assert f"chain --replace --autofree {BASE}/pxed/boot.ipxe || goto again" in found


def test_first_script_asks_the_check_with_all_that_is_known() -> None:
    assert lines(ALL["first"])[2] == (
        "chain --replace --autofree http://10.78.0.1/pxed/check/mac-${mac:hexhyp}/uuid-${uuid}/serial-${serial:uristring}"
        "/mfr-${manufacturer:uristring}/product-${product:uristring} || goto again"
    )


def test_first_script_over_tftp_stays_on_tftp() -> None:
    assert b"http:" not in ALL["first over TFTP"]


def test_work_script() -> None:
    assert lines(ALL["work"])[1:5] == [
        "imgfree",
        "kernel http://10.78.0.1/pxed/environment/vmlinuz pxed.server=http://10.78.0.1 pxed.token=t || goto again",
        "initrd --name initramfs.cpio.zst http://10.78.0.1/pxed/environment/initramfs.cpio.zst || goto again",
        "boot || goto again",
    ]


def test_kernel_by_multicast_is_tried_and_falls_back() -> None:
    assert lines(ALL["work by multicast"])[2] == (
        "kernel mtftp://10.78.0.1:1760/pxed/environment/vmlinuz pxed.token=t || "
        "kernel http://10.78.0.1/pxed/environment/vmlinuz pxed.token=t || goto again"
    )


def test_hold_script_waits_without_an_end() -> None:
    """While the server answers, the counter of failures is cleared each time."""
    assert lines(scripts.hold_script(BASE, "held", 7))[1:5] == [
        "echo pxed: held; asking again in 7 s",
        "clear pxed-tries ||",
        "sleep 7",
        "chain --replace --autofree http://10.78.0.1/pxed/boot.ipxe || goto again",
    ]


def test_reasons_cannot_become_commands() -> None:
    script = lines(scripts.local_script("no\nshell && `x` ${net0/mac} || exit\r$(y) \u2028 é"))
    assert script[1] == "echo pxed: no_shell __ _x_ __net0/mac_ __ exit__(y) _ _; booting the local disk"
    assert len(script) == 4


def test_command_line() -> None:
    line = scripts.kernel_command_line(
        BASE, "TOKEN", "aa:bb:cc:dd:ee:ff", console=("tty0", "ttyS0,115200"), append="quiet", debug=True
    )
    assert line == (
        "pxed.server=http://10.78.0.1 pxed.token=TOKEN BOOTIF=01-aa-bb-cc-dd-ee-ff pxed.debug=1 "
        "console=tty0 console=ttyS0,115200 initrd=initramfs.cpio.zst quiet"
    )


def test_command_line_at_its_shortest() -> None:
    assert scripts.kernel_command_line(BASE, "T", "") == (
        "pxed.server=http://10.78.0.1 pxed.token=T quiet initrd=initramfs.cpio.zst"
    )


FULL = Identity("52:54:00:12:34:56", "12345678-9abc-def0-1234-56789abcdef0", "AB C%41", "ACME Inc", "Box 1/2")


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        # As Debian 12's iPXE asked over HTTP (it leaves '/' as it is), and over TFTP, where names go decoded.
        (
            "pxed/check/mac-52-54-00-12-34-56/uuid-12345678-9abc-def0-1234-56789abcdef0/serial-AB%20C%2541"
            "/mfr-ACME%20Inc/product-Box%201/2",
            FULL,
        ),
        (
            "/pxed/check/mac-52-54-00-12-34-56/uuid-/serial-AB C/mfr-ACME Inc/product-Box 1/2/3",
            Identity("52:54:00:12:34:56", "", "AB C", "ACME Inc", "Box 1/2/3"),
        ),
        ("pxed/check/mac-AA-BB-CC-DD-EE-FF", Identity("aa:bb:cc:dd:ee:ff")),
        ("pxed/check/serial-x", Identity(serial="x")),
        ("pxed/check/serial-a/serial-b", Identity(serial="a/serial-b")),
        ("pxed/check/serial-a//b", Identity(serial="a//b")),
        ("pxed/check/serial-a/other-b/mfr-c", Identity(serial="a/other-b", manufacturer="c")),
        ("pxed/check/mac-/uuid-/serial-/mfr-/product-", Identity()),
        ("pxed/check/serial-%ff%zz%", Identity(serial="\ufffd%zz%")),
    ],
)
def test_check_name_is_read(name: str, identity: Identity) -> None:
    assert scripts.parse_check_name(name) == identity


@pytest.mark.parametrize(
    "name",
    ["", "pxed/check", "pxed/check/", "pxed/boot.ipxe", "pxed/check/what/mac-1", "check/mac-1"],
)
def test_other_names_are_none(name: str) -> None:
    assert scripts.parse_check_name(name) is None


def test_check_name_over_tftp_is_not_decoded_again() -> None:
    name = "pxed/check/serial-AB C%41/mfr-50%/2"
    assert scripts.parse_check_name(name, encoded=False) == Identity(serial="AB C%41", manufacturer="50%/2")


def test_check_name_is_written() -> None:
    assert scripts.check_name(FULL) == (
        "pxed/check/mac-52-54-00-12-34-56/uuid-12345678-9abc-def0-1234-56789abcdef0/serial-AB%20C%2541"
        "/mfr-ACME%20Inc/product-Box%201%2F2"
    )
