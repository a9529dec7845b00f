"""The site as the configuration has it."""

from pxed.boot import Site
from pxed.config import Config, Dhcp, Http, Mtftp, Server, Tftp, Transaction
from pxed.wire import pxe


def site(**tables: object) -> Site:
    return Site.from_config(Config(server=Server(address="10.78.0.1"), **{"tftp": Tftp(root="/srv/tftp"), **tables}))


def test_defaults() -> None:
    assert site() == Site(
        boot_programs={
            0: "undionly.kpxe",
            6: "snponly-ia32.efi",
            7: "snponly.efi",
            9: "snponly.efi",
            10: "snponly-arm32.efi",
            11: "snponly-arm64.efi",
            15: "snponly-ia32.efi",
            16: "snponly.efi",
            18: "snponly-arm32.efi",
            19: "snponly-arm64.efi",
        },
        program_folders=("/srv/tftp", "/usr/lib/ipxe"),
    )


def test_configured() -> None:
    made = site(
        dhcp=Dhcp(boot_programs={"7": "shimx64.efi", "41": "bootcode.bin"}),
        mtftp=Mtftp(enabled=True, machines={"AA-BB-CC-00-11-22": True}, architectures=(0,), listen=3),
        transaction=Transaction(no_work="local"),
        http=Http(port=8080),
        tftp=Tftp(root="/srv/tftp", port=6969),
    )
    assert (made.boot_programs[7], made.boot_programs[41], made.boot_programs[0]) == (
        "shimx64.efi",
        "bootcode.bin",
        "undionly.kpxe",
    )
    assert made.no_work == "local"
    assert made.mtftp is not None
    assert made.mtftp.groups["undionly.kpxe"] == pxe.Mtftp("239.255.78.251", 2056, 1799, 3, 2)
    assert (made.mtftp.told("aa:bb:cc:00:11:22", 7), made.mtftp.told("aa:bb:cc:00:11:23", 7)) == (True, False)
    assert made.mtftp.told("aa:bb:cc:00:11:23", 0)
    assert (made.singles_out("aa:bb:cc:00:11:22"), made.singles_out("aa:bb:cc:00:11:23")) == (True, False)
    assert made.mtftp_base("10.0.0.1") == "mtftp://10.0.0.1:1760"
    assert made.http_base("10.0.0.1") == "http://10.0.0.1:8080"
    assert made.tftp_base("10.0.0.1") == "tftp://10.0.0.1:6969"
    assert (made.http_base("fd00::1"), made.tftp_base("fd00::1")) == ("http://[fd00::1]:8080", "tftp://[fd00::1]:6969")


def test_usual_ports_are_left_out() -> None:
    assert site().http_base("10.0.0.1") == "http://10.0.0.1"
    assert site().tftp_base("10.0.0.1") == "tftp://10.0.0.1"
    assert (site().http_base("fd00::1"), site().tftp_base("fd00::1")) == ("http://[fd00::1]", "tftp://[fd00::1]")


def test_urls() -> None:
    assert site().http_url("10.0.0.1", "/a b/ü%.efi") == "http://10.0.0.1/a%20b/%C3%BC%25.efi"


def test_first_of_the_clients_architectures_with_a_program() -> None:
    assert site().program((27, 11, 7)) == (11, "snponly-arm64.efi")
    assert site().program((27,)) is None
    assert site().program((27, 11, 7), frozenset({"snponly-arm64.efi"})) == (7, "snponly.efi")


def test_nobody_is_told_of_mtftp_that_is_not_served() -> None:
    marked = Mtftp(machines={"aa:bb:cc:00:11:22": True}, architectures=(0,))
    assert site(mtftp=marked).mtftp is None


def test_each_file_has_a_group_of_its_own_that_stays_when_others_come() -> None:
    def groups(programs: dict[str, str]) -> dict[str, str]:
        made = site(mtftp=Mtftp(enabled=True), dhcp=Dhcp(boot_programs=programs)).mtftp
        assert made is not None
        return {name: group.address for name, group in made.groups.items()}

    before = groups({})
    after = groups({str(arch): f"{arch}.efi" for arch in (41, 43)})
    assert len(set(after.values())) == len(after) == len(before) + 2
    assert sum(after[name] == before[name] for name in before) >= len(before) - 1
    many = groups({str(arch): f"{arch}.efi" for arch in range(100, 130)})
    assert len(set(many.values())) == len(many) == 16
