"""Text where the configuration should be: a configuration that everything can use, or mistakes with their places."""

from pxed import boot
from pxed.config import Config, parse
from pxed.errors import ConfigError

WORDS = (
    b"[server]\n", b"address = ", b'"10.78.0.1"', b"[tftp]\n", b"root = ", b'"/srv"', b"[dhcp]\n", b"boot_programs",
    b"machines = ", b"[[mtftp.files]]\n", b"name = ", b"[http]\n", b"port = ", b"[transaction]\n",
    b'no_work = "local"', b"[jobs]\n", b"silence = ",
    b"[environment]\n", b"append = ", b"console = ", b'"""', b"'''", b"[[", b"]]", b"1979-05-27", b"inf", b"nan", b"0x",
)  # fmt: skip
SMALLEST = b'[server]\naddress = "10.78.0.1"\n[tftp]\nroot = "/srv/tftp"\n'


def seeds() -> dict[str, bytes]:
    """A small one, a full one, and mistakes."""
    full = b"""[dhcp]\nenabled = true\nboot_programs = { 7 = "snponly.efi", 0 = "a" }
[mtftp.machines]\n"52:54:00:12:34:56" = true\n[[mtftp.files]]
name = "a"
[http]\nport = 8080\n[transaction]\nunknown_machines = "hold"\nno_work = "local"
[jobs]\nsilence = 5.5\n[environment]\nappend = "a=b"\nconsole = ["ttyS0,115200"]\n"""
    return {
        "smallest": SMALLEST,
        "full": SMALLEST + full,
        "typing": b'[sever]\nadress = "x"\n[tftp]\nroot = "srv"\nprot = 69\n',
        "syntax": b"[server\naddress = \n",
        "types": b'[server]\naddress = 7\nstate_dir = """a\nb"""\n[tftp]\nroot = ["/"]\nport = 1e9\n',
        "names": b'[a.b]\n"q k" = nan\n[tftp]\nroot = 1979-05-27\n',
        "deep": b"x = " + b"[" * 300 + b"]" * 300,
        "digits": b"x = " + b"9" * 5000,
    }


def one(data: bytes) -> None:
    """Any text."""
    try:
        config = parse(data.decode("utf-8", "replace"), "f.toml")
    except ConfigError as error:
        lines = str(error).splitlines()
        assert lines and all(line.startswith("f.toml:") and line.isprintable() for line in lines), lines
        return
    assert isinstance(config, Config)
    site = boot.Site.from_config(config)
    assert site.program((0, 7)) is None or site.http_base("10.78.0.1")
