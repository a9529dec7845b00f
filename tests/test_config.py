"""The configuration's loading: every kind of mistake by name, with the whole message."""

from pathlib import Path

import pytest

from pxed.config import Config, MtftpGroup, Start, load, minutes_of_day, parse, start_rule
from pxed.errors import ConfigError

MINIMAL = """\
[server]
address = "10.78.0.1"
state_dir = "/var/lib/pxed"
[tftp]
root = "/srv/tftp"
"""

SECTIONS = (
    "`[server]`, `[tftp]`, `[log]`, `[dhcp]`, `[mtftp]`, `[cast]`, `[http]`, `[transaction]`, `[jobs]`, `[images]`, "
    "`[environment]`, `[metrics]`"
)
ADDRESS = "an IPv4 address, or a list of different ones, IPv6 among them if wanted"
MACS = 'a table from different MACs like "52:54:00:12:34:56" to true or false'
PORTS = '"single", or a range of at least 64 ports like "40000-41000"'
GROUPS = 'at most 1024 multicast addresses like "239.255.78.0/24"'
HOURS = 'a table from hours like "08:00-18:00" to rates like "50Mbit"'
START = '"first", "20 machines", "300 seconds", "20 machines or 300 seconds", a time like "22:30" or "manual"'
PROGRAMS = "a table from architecture numbers (0 to 65535) to file names"


def mistakes(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")
    return str(caught.value)


def test_minimal_config_is_enough() -> None:
    config = parse(MINIMAL)
    assert config.server.addresses == ("10.78.0.1",)
    assert config.images_dir == "/var/lib/pxed/images"
    assert config.environment_dir == "/var/lib/pxed/environment"
    assert config.dhcp.boot_program(7) == "snponly.efi"
    assert config.dhcp.boot_program(12345) is None


def test_addresses_of_both_families_in_their_one_form() -> None:
    server = parse(MINIMAL.replace('"10.78.0.1"', '["FD00:0::1", "10.78.0.1", "2001:db8::0:1"]')).server
    assert server.addresses == ("fd00::1", "10.78.0.1", "2001:db8::1")
    assert server.ipv4 == ("10.78.0.1",)


def test_every_key_is_taken_over() -> None:
    config = parse(
        """
        [server]
        address = ["10.78.0.1", "10.79.0.1"]
        state_dir = "/s"
        socket = "/run/x.sock"
        user = "nobody"
        [log]
        level = "debug"
        format = "json"
        [dhcp]
        enabled = false
        same_host_dhcp = true
        boot_programs = { 7 = "shim.efi" }
        boot_program_dir = "/boot"
        [tftp]
        root = "/srv"
        port = 6969
        ports = "40000-40063"
        [mtftp]
        enabled = true
        groups = "239.192.0.0/22"
        port = 1757
        ttl = 4
        architectures = [0]
        machines = { "52:54:00:12:34:56" = false }
        ipxe = "never"
        [[mtftp.files]]
        name = "pxelinux.0"
        [[mtftp.files]]
        name = "shim.efi"
        group = "239.192.9.9"
        listen = 0
        delay = 9
        [cast]
        enabled = false
        rate = "170Mbit"
        rates = { eth1 = "2Gbit" }
        session_rate = "100Mbit"
        floor = "20Mbit"
        hours = { "08:00-18:00" = "50Mbit" }
        start = "20 machines or 300 seconds"
        groups = "239.193.0.0/24"
        port = 1761
        ttl = 2
        [http]
        port = 8080
        [transaction]
        unknown_machines = "hold"
        no_work = "local"
        [jobs]
        silence = 5
        boot_timeout = 1.5
        [images]
        dir = "/i"
        public = false
        [environment]
        dir = "/e"
        append = "quiet"
        console = ["ttyS1"]
        [metrics]
        listen = "127.0.0.1:9469"
        """
    )
    assert config.metrics.place == ("127.0.0.1", 9469)
    assert config.server.addresses == ("10.78.0.1", "10.79.0.1")
    assert (config.log.level, config.dhcp.boot_program(7), config.tftp.port) == ("debug", "shim.efi", 6969)
    assert config.tftp.transfer_ports == range(40_000, 40_064)
    assert parse(MINIMAL).tftp.transfer_ports is None
    assert (config.mtftp.enabled, config.mtftp.network.num_addresses, config.mtftp.port) == (True, 1024, 1757)
    assert config.mtftp.passing == 1008
    groups = config.mtftp_groups
    assert groups["shim.efi"] == MtftpGroup("239.192.9.9", 2056, 0, 9)
    assert groups["pxelinux.0"].delay == groups["undionly.kpxe"].delay == 2
    cast = config.cast
    assert (cast.enabled, cast.rate, cast.rates["eth1"], cast.floor) == (False, "170Mbit", "2Gbit", "20Mbit")
    assert (cast.network.num_addresses, cast.port, cast.ttl, config.images.public) == (256, 1761, 2, False)
    assert (config.jobs.silence, config.images_dir, config.environment.console) == (5.0, "/i", ("ttyS1",))


MISTAKES = {
    "unknown key, nearest in its section": (
        MINIMAL.replace("state_dir", "statedir"),
        "f.toml:3: key `server.statedir`: expected one of `address`, `state_dir`, `socket`, `user`, `rates`; "
        "did you mean `server.state_dir`?",
    ),
    "required key mistyped is said once": (
        MINIMAL.replace("address", "adress"),
        "f.toml:2: key `server.adress`: expected one of `address`, `state_dir`, `socket`, `user`, `rates`; "
        "did you mean `server.address`?",
    ),
    "key of another section": (
        MINIMAL + "same_host_dhcp = true\n",
        "f.toml:6: key `tftp.same_host_dhcp`: expected one of `root`, `rate`, `running`, `port`, `threads`, `ports`; "
        "did you mean `dhcp.same_host_dhcp`?",
    ),
    "no rate": (
        MINIMAL + 'rate = "fast"\n',
        'f.toml:6: key `tftp.rate`: expected a rate like "900Mbit" or "2.5Gbit"; got "fast"',
    ),
    "a rate without a unit": (
        MINIMAL + "rate = 100\n",
        'f.toml:6: key `tftp.rate`: expected a rate like "900Mbit" or "2.5Gbit"; got 100',
    ),
    "a rate at which nothing boots": (
        MINIMAL + 'rate = "99kbit"\n',
        'f.toml:6: key `tftp.rate`: expected a rate like "900Mbit" or "2.5Gbit"; got "99kbit", which is too slow',
    ),
    "no rate for an interface": (
        MINIMAL.replace("[tftp]", 'rates = { eth0 = "1Gbit", eth1 = "" }\n[tftp]'),
        'f.toml:4: key `server.rates`: expected a table from interfaces to rates like "900Mbit" or "2.5Gbit"; '
        'got "" for "eth1"',
    ),
    "unknown key like nothing": (
        MINIMAL + "zzz = 1\n",
        "f.toml:6: key `tftp.zzz`: expected one of `root`, `rate`, `running`, `port`, `threads`, `ports`",
    ),
    "unknown section": (
        MINIMAL + "[dchp]\n",
        f"f.toml:6: section `dchp`: expected one of {SECTIONS}; did you mean `[dhcp]`?",
    ),
    "key outside of any section": (
        "colour = 1\n" + MINIMAL,
        f"f.toml:1: section `colour`: expected one of {SECTIONS}",
    ),
    "section is not a table": (
        MINIMAL.replace('[tftp]\nroot = "/srv/tftp"', "") + '[[tftp]]\nroot = "/srv"\n',
        "f.toml:5: section `tftp`: expected a table; got a list",
    ),
    "missing key": (
        MINIMAL.replace('root = "/srv/tftp"\n', ""),
        "f.toml:4: key `tftp.root`: expected an absolute path; the key is missing",
    ),
    "missing section": (
        '[server]\naddress = "10.78.0.1"\n',
        "f.toml: key `tftp.root`: expected an absolute path; the key is missing",
    ),
    "wrong type: number": (
        MINIMAL.replace('"10.78.0.1"', "3"),
        f"f.toml:2: key `server.address`: expected {ADDRESS}; got 3",
    ),
    "wrong type: text for a port": (
        MINIMAL + 'port = "69"\n',
        'f.toml:6: key `tftp.port`: expected a whole number from 1 to 65535; got "69"',
    ),
    "wrong type: fraction for a port": (
        MINIMAL + "port = 6.5\n",
        "f.toml:6: key `tftp.port`: expected a whole number from 1 to 65535; got 6.5",
    ),
    "wrong type: a list for text": (
        MINIMAL.replace('"/var/lib/pxed"', "[]"),
        "f.toml:3: key `server.state_dir`: expected an absolute path; got an empty list",
    ),
    "wrong type: a table for text": (
        MINIMAL + "[images]\ndir = {}\n",
        "f.toml:7: key `images.dir`: expected an absolute path; got a table",
    ),
    "wrong type: text for a flag": (
        MINIMAL + '[dhcp]\nenabled = "yes"\n',
        'f.toml:7: key `dhcp.enabled`: expected true or false; got "yes"',
    ),
    "wrong type: flag for text": (
        MINIMAL + "[server.user]\n",
        "f.toml:6: key `server.user`: expected text; got a table",
    ),
    "port out of range": (
        MINIMAL + "port = 70000\n",
        "f.toml:6: key `tftp.port`: expected a whole number from 1 to 65535; got 70000",
    ),
    "number beyond 64 bits": (
        MINIMAL + f"port = {10**40}\n",
        "f.toml:6: key `tftp.port`: expected a whole number from 1 to 65535; got a number of more than 64 bits",
    ),
    "unknown word": (
        MINIMAL + '[transaction]\nno_work = "locla"\n',
        'f.toml:7: key `transaction.no_work`: expected one of "silent", "local"; got "locla"; did you mean `"local"`?',
    ),
    "no address": (
        MINIMAL.replace('"10.78.0.1"', "[]"),
        f"f.toml:2: key `server.address`: expected {ADDRESS}; got an empty list",
    ),
    "address that is none": (
        MINIMAL.replace("10.78.0.1", "10.78.0.256"),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "10.78.0.256"',
    ),
    "name instead of an address": (
        MINIMAL.replace("10.78.0.1", "bootserver"),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "bootserver"',
    ),
    "IPv6 alone": (
        MINIMAL.replace('"10.78.0.1"', '["fd00::1", "fd00::2"]'),
        f"f.toml:2: key `server.address`: expected {ADDRESS}; got IPv6 alone: DHCP needs an IPv4 address",
    ),
    "link-local IPv6": (
        MINIMAL.replace('"10.78.0.1"', '["10.78.0.1", "fe80::1%eth0"]'),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "fe80::1%eth0", which is link-local: no URL can name '
        "it, take a global or unique local one",
    ),
    "IPv6 with an interface": (
        MINIMAL.replace('"10.78.0.1"', '["10.78.0.1", "fd00::1%eth0"]'),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "fd00::1%eth0", which names an interface: '
        "the address alone is enough",
    ),
    "IPv4 as IPv6": (
        MINIMAL.replace('"10.78.0.1"', '["10.78.0.1", "::ffff:10.78.0.1"]'),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "::ffff:10.78.0.1", which is no IPv6 address of a '
        "host: write IPv4 addresses as such",
    ),
    "IPv6 group": (
        MINIMAL.replace('"10.78.0.1"', '["10.78.0.1", "ff02::1"]'),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "ff02::1", which is no host\'s address',
    ),
    "IPv6 twice": (
        MINIMAL.replace('"10.78.0.1"', '["10.78.0.1", "fd00::1", "FD00:0::1"]'),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "fd00::1" twice',
    ),
    "address of no host": (
        MINIMAL.replace("10.78.0.1", "0.0.0.0"),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "0.0.0.0", which is no host\'s address',
    ),
    "address twice": (
        MINIMAL.replace('"10.78.0.1"', '["10.78.0.1", "10.78.0.1"]'),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "10.78.0.1" twice',
    ),
    "address with a control character, a quote and a backslash": (
        MINIMAL.replace("10.78.0.1", '\\u0085\\"\\\\ü'),
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "\\u0085\\"\\\\ü"',
    ),
    "key with a line break in it": (
        MINIMAL + '"a\\nb" = 1\n',
        "f.toml:6: key `tftp.a\\nb`: expected one of `root`, `rate`, `running`, `port`, `threads`, `ports`",
    ),
    "relative path": (
        MINIMAL.replace("/srv/tftp", "srv"),
        'f.toml:5: key `tftp.root`: expected an absolute path; got "srv"',
    ),
    "socket path too long": (
        MINIMAL.replace("state_dir = ", 'socket = "/' + "s" * 100 + '"\nstate_dir = '),
        "f.toml:3: key `server.socket`: expected an absolute path of at most 100 bytes; got a path of 101 bytes",
    ),
    "architecture is no number": (
        MINIMAL + '[dhcp]\nboot_programs = { efi = "x.efi" }\n',
        f'f.toml:7: key `dhcp.boot_programs`: expected {PROGRAMS}; got the architecture "efi"',
    ),
    "architecture written with a zero in front": (
        MINIMAL + '[dhcp.boot_programs]\n07 = "x.efi"\n',
        f'f.toml:6: key `dhcp.boot_programs`: expected {PROGRAMS}; got the architecture "07"',
    ),
    "architecture out of range": (
        MINIMAL + '[dhcp.boot_programs]\n65536 = "x.efi"\n',
        f'f.toml:6: key `dhcp.boot_programs`: expected {PROGRAMS}; got the architecture "65536"',
    ),
    "boot program without a name": (
        MINIMAL + '[dhcp.boot_programs]\n7 = ""\n',
        f'f.toml:6: key `dhcp.boot_programs`: expected {PROGRAMS}; got "" for architecture "7"',
    ),
    "MAC that is none": (
        MINIMAL + '[mtftp.machines]\n"52:54:00:12:34" = true\n',
        f'f.toml:6: key `mtftp.machines`: expected {MACS}; got "52:54:00:12:34"',
    ),
    "MAC twice, in two writings": (
        MINIMAL + '[mtftp.machines]\n"52:54:00:AB:34:56" = true\n"52-54-00-ab-34-56" = false\n',
        f'f.toml:6: key `mtftp.machines`: expected {MACS}; got "52:54:00:ab:34:56" twice',
    ),
    "a port that clients would read in two ways": (
        MINIMAL + "[mtftp]\nserver_port = 1800\n",
        "f.toml:7: key `mtftp.server_port`: expected a port whose two bytes are alike, as 1799 (0x0707) or "
        "2056 (0x0808); got 1800",
    ),
    "an architecture twice": (
        MINIMAL + "[mtftp]\narchitectures = [0, 7, 0]\n",
        "f.toml:7: key `mtftp.architectures`: expected a list of different architecture numbers (0 to 65535); "
        'got "0" twice',
    ),
    "a key of the second table of a list": (
        MINIMAL + '[[mtftp.files]]\nname = "a"\n\n[[mtftp.files]]\nname = "b"\nlisten = 256\n',
        "f.toml:11: key `mtftp.files[2].listen`: expected a whole number from 0 to 255; got 256",
    ),
    "an unknown key of a list's table": (
        MINIMAL + '[[mtftp.files]]\nname = "a"\ngrup = "239.255.78.9"\n',
        "f.toml:8: key `mtftp.files[1].grup`: expected one of `name`, `group`, `client_port`, `listen`, `delay`; "
        "did you mean `mtftp.files[1].group`?",
    ),
    "a list's table without what it needs": (
        MINIMAL + '[[mtftp.files]]\ngroup = "10.0.0.1"\n',
        "f.toml:6: key `mtftp.files[1].name`: expected a file's name; the key is missing\n"
        'f.toml:7: key `mtftp.files[1].group`: expected a multicast address like "239.255.78.240"; got "10.0.0.1", '
        "which are no groups",
    ),
    "two files in one group": (
        MINIMAL + "".join(f'[[mtftp.files]]\nname = "{name}"\ngroup = "239.255.78.9"\n' for name in "ab"),
        "f.toml:6: key `mtftp.files`: expected [[mtftp.files]] tables of different files and groups; "
        'got "239.255.78.9" twice',
    ),
    "no tables where they belong": (
        MINIMAL + "[mtftp]\nfiles = 3\n",
        "f.toml:7: key `mtftp.files`: expected [[mtftp.files]] tables of different files and groups; got 3",
    ),
    "no network of groups": (
        MINIMAL + '[mtftp]\ngroups = "239.255.78.0/33"\n',
        f'f.toml:7: key `mtftp.groups`: expected {GROUPS}; got "239.255.78.0/33"',
    ),
    "groups by one of them": (
        MINIMAL + '[mtftp]\ngroups = "239.255.78.1/24"\n[cast]\ngroups = "239.255.79.9/30"\n',
        f'f.toml:7: key `mtftp.groups`: expected {GROUPS}; got "239.255.78.1/24", which is an address within a range: '
        'write "239.255.78.0/24"\n'
        f'f.toml:9: key `cast.groups`: expected {GROUPS}; got "239.255.79.9/30", which is an address within a range: '
        'write "239.255.79.8/30"',
    ),
    "groups that are none": (
        MINIMAL + '[mtftp]\ngroups = "10.0.0.0/24"\n',
        f'f.toml:7: key `mtftp.groups`: expected {GROUPS}; got "10.0.0.0/24", which are no groups',
    ),
    "too many groups": (
        MINIMAL + '[mtftp]\ngroups = "239.255.0.0/16"\n',
        f'f.toml:7: key `mtftp.groups`: expected {GROUPS}; got "239.255.0.0/16", which are 65536',
    ),
    "groups that are sent everywhere": (
        MINIMAL + '[mtftp]\ngroups = "239.128.0.128/25"\n',
        f'f.toml:7: key `mtftp.groups`: expected {GROUPS}; got "239.128.0.128/25", which switches take for '
        "224.0.0.0/24 and send everywhere",
    ),
    "rate that is none": (
        MINIMAL + '[cast]\nrate = "fast"\n',
        'f.toml:7: key `cast.rate`: expected a rate like "900Mbit" or "2.5Gbit"; got "fast"',
    ),
    "hours that are none": (
        MINIMAL + '[cast.hours]\n"8-18" = "50Mbit"\n"08:00-08:00" = "x"\n',
        f'f.toml:6: key `cast.hours`: expected {HOURS}; got "8-18"\n'
        f'f.toml:6: key `cast.hours`: expected {HOURS}; got "08:00-08:00"\n'
        f'f.toml:6: key `cast.hours`: expected {HOURS}; got "x" for "08:00-08:00"',
    ),
    "start that is none": (
        MINIMAL + '[cast]\nstart = "0 machines"\n',
        f'f.toml:7: key `cast.start`: expected {START}; got "0 machines"',
    ),
    "start with more machines than a session holds": (
        MINIMAL + '[cast]\nstart = "4001 machines or 60 seconds"\n',
        f'f.toml:7: key `cast.start`: expected {START}; got "4001 machines or 60 seconds", and a session holds 4000',
    ),
    "time without an end": (
        MINIMAL + "[jobs]\nsilence = inf\n",
        "f.toml:7: key `jobs.silence`: expected a number of seconds above 0; got inf",
    ),
    "time of nothing": (
        MINIMAL + "[jobs]\nboot_timeout = 0\n",
        "f.toml:7: key `jobs.boot_timeout`: expected a number of seconds above 0; got 0",
    ),
    "command line of two lines": (
        MINIMAL + '[environment]\nappend = "a\\nb"\n',
        'f.toml:7: key `environment.append`: expected one line of text; got "a\\nb"',
    ),
    "console with a blank": (
        MINIMAL + '[environment]\nconsole = ["tty 0"]\n',
        'f.toml:7: key `environment.console`: expected a list of consoles like "ttyS0,115200"; got "tty 0"',
    ),
    "ports that are no range": (
        MINIMAL + 'ports = "many"\n',
        f'f.toml:6: key `tftp.ports`: expected {PORTS}; got "many"',
    ),
    "ports too few": (
        MINIMAL + 'ports = "40000-40062"\n',
        f'f.toml:6: key `tftp.ports`: expected {PORTS}; got "40000-40062", which has 63',
    ),
    "ports that there are not": (
        MINIMAL + 'ports = "65000-66000"\n',
        f'f.toml:6: key `tftp.ports`: expected {PORTS}; got "65000-66000", which is not within 1024 to 65535',
    ),
    "ports backwards": (
        MINIMAL + 'ports = "41000-40000"\n',
        f'f.toml:6: key `tftp.ports`: expected {PORTS}; got "41000-40000", which has 0',
    ),
    "metrics on no address": (
        MINIMAL + '[metrics]\nlisten = "9469"\n',
        'f.toml:7: key `metrics.listen`: expected an IPv4 address and a port, like "127.0.0.1:9469"; got "9469"',
    ),
    "metrics on a wrong port": (
        MINIMAL + '[metrics]\nlisten = "127.0.0.1:94690"\n',
        'f.toml:7: key `metrics.listen`: expected an IPv4 address and a port, like "127.0.0.1:9469"; '
        'got "127.0.0.1:94690"',
    ),
    "syntax": (
        MINIMAL + "port = = 3\n",
        "f.toml:6: not valid TOML: Invalid value (column 8).",
    ),
    "syntax at the end": (
        MINIMAL + "[dhcp",
        "f.toml: not valid TOML: Expected ']' at the end of a table declaration (at end of document).",
    ),
    "section twice": (
        MINIMAL + "[server]\n",
        "f.toml:6: not valid TOML: Cannot declare ('server',) twice (column 8).",
    ),
    "mistakes after text that looks like keys": (
        '[environment]\nappend = """\n[log]\nlevel = 1\n"""\n' + MINIMAL + "[log]\nlevel = 1\n",
        'f.toml:2: key `environment.append`: expected one line of text; got "[log]\\nlevel = 1\\n"\n'
        'f.toml:12: key `log.level`: expected one of "debug", "info", "warning", "error"; got 1',
    ),
    "dotted keys and inline tables": (
        'server = { address = "10.78.0.1", user = 1 }\ntftp.root = "srv"\n',
        "f.toml:1: key `server.user`: expected text; got 1\n"
        'f.toml:2: key `tftp.root`: expected an absolute path; got "srv"',
    ),
    "all at once": (
        '[server]\naddress = "x"\n[tftp]\nport = 0\n[http]\nprt = 1\n',
        f'f.toml:2: key `server.address`: expected {ADDRESS}; got "x"\n'
        "f.toml:3: key `tftp.root`: expected an absolute path; the key is missing\n"
        "f.toml:4: key `tftp.port`: expected a whole number from 1 to 65535; got 0\n"
        "f.toml:6: key `http.prt`: expected one of `port`, `connections`, `connections_per_address`; "
        "did you mean `http.port`?",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake(text: str, message: str) -> None:
    assert mistakes(text) == message


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: the configuration cannot be read: No such file or directory\."):
        load(tmp_path / "none.toml")


def test_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_bytes(b'[server]\naddress = "\xff"\n')
    with pytest.raises(ConfigError, match=r"f\.toml: the configuration is not UTF-8 text \(byte 20\)\."):
        load(file)


def test_load_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text(MINIMAL)
    assert isinstance(load(file), Config)
    file.write_text(MINIMAL + "port = 0\n")
    with pytest.raises(ConfigError, match=rf"^{file}:6: key `tftp.port`: "):
        load(file)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("first", Start(machines=1)),
        ("manual", Start()),
        ("1 machine", Start(machines=1)),
        ("20 machines", Start(machines=20)),
        ("300 seconds", Start(seconds=300)),
        ("20 machines or 300 seconds", Start(20, 300)),
        ("00:00", Start(minute=0)),
        ("22:30", Start(minute=22 * 60 + 30)),
    ],
)
def test_when_a_session_starts(text: str, rule: Start) -> None:
    assert parse(MINIMAL + f'[cast]\nstart = "{text}"\n').cast.start == text
    assert start_rule(text) == rule


@pytest.mark.parametrize("text", ["", "24:00", "7:30", "soon", "20", "20 machines and 300 seconds", "-1 seconds"])
def test_what_is_no_start(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(MINIMAL + f'[cast]\nstart = "{text}"\n')


def test_hours_as_minutes_of_the_day() -> None:
    assert minutes_of_day("08:00-18:30") == (480, 1110)
    assert minutes_of_day("22:00-06:00") == (1320, 360)
    assert minutes_of_day("08:00") is None
