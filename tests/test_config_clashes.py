"""Keys that are right each by itself and cannot be together."""

import pytest

from pxed.config import parse
from pxed.errors import ConfigError

BASE = '[server]\naddress = "10.78.0.1"\n'
ROOT = '[tftp]\nroot = "/srv"\n'
FILE = "[[mtftp.files]]\n"
MTFTP = "[mtftp]\nenabled = true\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{BASE}{ROOT}{MTFTP}port = 69\n", "f.toml:7: key `mtftp.port`: expected a UDP port of its own; "
         "got 69, which is that of `tftp.port`"),
        (f"{BASE}{ROOT}port = 1758\n{MTFTP}", "f.toml:6: key `mtftp.port`: expected a UDP port of its own; "
         "got 1758, which is that of `tftp.port`"),
        (f"{BASE}{ROOT}{MTFTP}port = 67\n", "f.toml:7: key `mtftp.port`: expected a UDP port of its own; "
         "got 67, which is that of DHCP"),
        (f"{BASE}{ROOT}{MTFTP}port = 4011\n", "f.toml:7: key `mtftp.port`: expected a UDP port of its own; "
         "got 4011, which is that of PXE boot servers"),
        (f"{BASE}{ROOT}port = 67\n", "f.toml:5: key `tftp.port`: expected a UDP port of its own; "
         "got 67, which is that of DHCP"),
        (f'{BASE}{ROOT}ports = "40000-40999"\n{MTFTP}port = 40007\n', "f.toml:8: key `mtftp.port`: expected a UDP port "
         "of its own; got 40007, which is one of `tftp.ports`"),
        (f"{BASE}{ROOT}{MTFTP}[cast]\nport = 1758\n", "f.toml:8: key `cast.port`: expected a UDP port of its own; "
         "got 1758, which is that of `mtftp.port`"),
        (f"{BASE}{ROOT}{MTFTP}ipxe_port = 1799\n", "f.toml:7: key `mtftp.ipxe_port`: expected a UDP port of its own; "
         "got 1799, which is that of `mtftp.server_port`"),
        (f'{BASE}{ROOT}{MTFTP}groups = "239.255.79.128/25"\n', "f.toml: key `cast.groups`: expected addresses beside "
         'those of `mtftp.groups`, "239.255.79.128/25"; got "239.255.79.0/24"'),
        (f'{BASE}{ROOT}{MTFTP}{FILE}name = "a"\n{FILE}name = "/./a"\n', "f.toml:10: key `mtftp.files[2].name`: "
         'expected a file that no other [[mtftp.files]] names; got "/./a"'),
        (f'{BASE}{ROOT}{MTFTP}{FILE}name = "a"\ngroup = "239.255.78.9"\n', "f.toml:9: key `mtftp.files[1].group`: "
         "expected a group that is not of those which files take and give back, 239.255.78.0 to 239.255.78.239; "
         'got "239.255.78.9"'),
        (f'{BASE}{ROOT}{MTFTP}{FILE}name = "a"\ngroup = "239.1.2.3"\n{FILE}name = "b"\ngroup = "239.129.2.3"\n',
         "f.toml:12: key `mtftp.files[2].group`: expected a group with an Ethernet address of its own; "
         'got "239.129.2.3", which has that of `mtftp.files[1].group`'),
        (f'{BASE}{ROOT}{MTFTP}{FILE}name = "a"\ngroup = "239.255.1.1"\n', "f.toml:9: key `mtftp.files[1].group`: "
         "expected a group with an Ethernet address of its own; "
         'got "239.255.1.1", which has that of iPXE\'s group, 239.255.1.1'),
        (f'{BASE}{ROOT}[cast]\nrate = "10Mbit"\nfloor = "20Mbit"\n', "f.toml:7: key `cast.floor`: expected a rate of "
         'at most that of `cast.rate`, "10Mbit"; got "20Mbit"'),
        (f'{BASE}{ROOT}[cast]\nsession_rate = "1Mbit"\nfloor = "20Mbit"\n', "f.toml:7: key `cast.floor`: expected a "
         'rate of at most that of `cast.session_rate`, "1Mbit"; got "20Mbit"'),
        (f'{BASE}{ROOT}[cast]\nfloor = "20Mbit"\nrates = {{ eth1 = "9Mbit" }}\n', "f.toml:6: key `cast.floor`: "
         'expected a rate of at most that of `cast.rates.eth1`, "9Mbit"; got "20Mbit"'),
        (f'{BASE}{ROOT}[cast]\nrate = "1Gbit"\nfloor = "20Mbit"\nhours = {{ "08:00-18:00" = "8Mbit" }}\n',
         "f.toml:7: key `cast.floor`: expected a rate of at most that of `cast.hours.08:00-18:00`, "
         '"8Mbit"; got "20Mbit"'),
        (f'{BASE}{ROOT}{MTFTP}{FILE}name = "a"\ngroup = "239.255.79.5"\n', "f.toml:9: key `mtftp.files[1].group`: "
         'expected a group beside those of `cast.groups`, "239.255.79.0/24"; got "239.255.79.5"'),
    ],
)  # fmt: skip
def test_clash(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        f"{BASE}{ROOT}{MTFTP}",
        f"{BASE}{ROOT}[mtftp]\nport = 69\n",
        f"{BASE}{ROOT}{MTFTP}port = 80\n",  # HTTP has TCP
        f"{BASE}{ROOT}{MTFTP}port = 4011\n[dhcp]\nenabled = false\n",
        f"{BASE}{ROOT}{MTFTP}port = 1759\n[cast]\nenabled = false\n",
        f'{BASE}{ROOT}port = 40100\nports = "40000-40999"\n',
        f'{BASE}{ROOT}[cast]\nfloor = "20Mbit"\n',
        f'{BASE}{ROOT}[cast]\nrate = "20Mbit"\nfloor = "20Mbit"\n',
        f'{BASE}{ROOT}[cast]\nenabled = false\nrate = "10Mbit"\nfloor = "20Mbit"\n',
        f'{BASE}{ROOT}{MTFTP}{FILE}name = "a"\ngroup = "239.255.79.5"\n[cast]\nenabled = false\n',
    ],
)
def test_no_clash(text: str) -> None:
    parse(text)


def test_groups_must_do_for_the_boot_programs_of_marked_machines() -> None:
    few = f'{BASE}{ROOT}{MTFTP}groups = "239.255.78.0/32"\n'
    parse(few)
    parse(f'{few}machines = {{ "52:54:00:12:34:56" = false }}\n')
    with pytest.raises(
        ConfigError, match=r"^f\.toml:7: key `mtftp\.groups`: expected as many addresses .* with none for"
    ):
        parse(f"{few}architectures = [0]\n", "f.toml")


def test_a_file_is_itself_however_it_is_written() -> None:
    config = parse(f'{BASE}{ROOT}{MTFTP}{FILE}name = "/undionly.kpxe"\ngroup = "239.1.2.3"\n')
    assert config.mtftp_groups["undionly.kpxe"].address == "239.1.2.3"
    assert "/undionly.kpxe" not in config.mtftp_groups
