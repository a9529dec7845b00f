"""iPXE scripts and the names that they ask for: pure text in, pure text out.

Only commands of iPXE 1.0.0 as Debian 12 has it (2019) are used. In an iPXE script a failing command ends the script
unless `||` follows; `exit 1` and not `exit 0` makes UEFI firmware go on to its next boot option.
"""

from urllib.parse import quote, unquote

from pxed.types import Identity

from ._site import FIRST_SCRIPT

__all__ = [
    "CHECK_PREFIX",
    "FIRST_SCRIPT",
    "INITRAMFS",
    "KERNEL",
    "check_name",
    "first_script",
    "hold_script",
    "kernel_command_line",
    "local_script",
    "parse_check_name",
    "work_script",
]

CHECK_PREFIX = "pxed/check/"
KERNEL = "pxed/environment/vmlinuz"
INITRAMFS = "pxed/environment/initramfs.cpio.zst"

# A machine asks for about half a minute through a restart of the server, then boots its disk: one that waited
# for ever would need a person to go there. The counter is an iPXE setting, so it lives on from script to script.
TRIES = 12
RETRY_SECONDS = 3

_FIELDS = {"mac": "mac", "uuid": "uuid", "serial": "serial", "mfr": "manufacturer", "product": "product"}
_CHECK = (
    "mac-${mac:hexhyp}/uuid-${uuid}/serial-${serial:uristring}"
    "/mfr-${manufacturer:uristring}/product-${product:uristring}"
)
_LOCAL = """\
iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||
exit 1
"""


def _script(*lines: str) -> bytes:
    return ("#!ipxe\n" + "".join(line if line.endswith("\n") else line + "\n" for line in lines)).encode()


def _again(base_url: str) -> str:
    """Label `again`: count, wait, and start anew with the first script; after TRIES the local disk."""
    return f"""\
:again
inc pxed-tries
iseq ${{pxed-tries}} {TRIES} && goto local ||
echo pxed: no answer from {base_url}, trying again
sleep {RETRY_SECONDS}
chain --replace --autofree {base_url}/{FIRST_SCRIPT} || goto again
:local
clear pxed-tries ||
echo pxed: booting the local disk
{_LOCAL}"""


def first_script(base_url: str) -> bytes:
    """The script that every iPXE gets first: it asks the transaction check. `base_url` has no slash at its end."""
    return _script(
        "echo pxed: asking what to do",
        f"chain --replace --autofree {base_url}/{CHECK_PREFIX}{_CHECK} || goto again",
        _again(base_url),
    )


def work_script(base_url: str, command_line: str, kernel_url: str = "") -> bytes:
    """Kernel and initramfs of the imaging environment. `command_line` comes from `kernel_command_line`.

    `kernel_url`: whence the kernel is tried first, if from somewhere else.
    """
    name = INITRAMFS.rpartition("/")[2]
    urls = [kernel_url, base_url] if kernel_url else [base_url]
    return _script(
        "imgfree",
        "".join(f"kernel {url}/{KERNEL} {command_line} || " for url in urls) + "goto again",
        f"initrd --name {name} {base_url}/{INITRAMFS} || goto again",
        "boot || goto again",
        _again(base_url),
    )


def local_script(reason: str) -> bytes:
    """Boot the machine's own disk: BIOS by its first drive, UEFI by going on in its boot order."""
    return _script(f"echo pxed: {_plain(reason)}; booting the local disk", _LOCAL)


def hold_script(base_url: str, reason: str, seconds: int = 10) -> bytes:
    """Wait for work: ask again after `seconds`, without an end as long as the server answers."""
    return _script(
        f"echo pxed: {_plain(reason)}; asking again in {seconds} s",
        "clear pxed-tries ||",
        f"sleep {seconds}",
        f"chain --replace --autofree {base_url}/{FIRST_SCRIPT} || goto again",
        _again(base_url),
    )


def kernel_command_line(
    server_url: str,
    token: str,
    mac: str,
    *,
    console: tuple[str, ...] = (),
    append: str = "",
    debug: bool = False,
) -> str:
    """The imaging environment's command line. `server_url` is boot HTTP's; `mac` may be '' when unknown.

    EFI kernels find their initramfs by `initrd=` (older iPXE has no other way); on BIOS it means nothing.
    """
    words = [f"pxed.server={server_url}", f"pxed.token={token}"]
    if mac:
        words.append("BOOTIF=01-" + mac.replace(":", "-"))
    # A kernel that tells everything it does spends seconds on a serial console of 115200 baud.
    words.append("pxed.debug=1" if debug else "quiet")
    words += [f"console={name}" for name in console]
    words.append("initrd=" + INITRAMFS.rpartition("/")[2])
    if append:
        words.append(append)
    return " ".join(words)


def _plain(text: str) -> str:
    """Text that `echo` shows as it is: nothing that iPXE expands or takes for a separator."""
    return "".join(c if c.isascii() and (c.isalnum() or c in " .,:;()_+=/@-") else "_" for c in text)


def check_name(identity: Identity) -> str:
    """The name that a client of this identity asks for; the inverse of `parse_check_name`."""
    mac = identity.mac.replace(":", "-")
    rest = (
        ("uuid", identity.uuid),
        ("serial", identity.serial),
        ("mfr", identity.manufacturer),
        ("product", identity.product),
    )
    return CHECK_PREFIX + "/".join([f"mac-{mac}", *(f"{key}-{quote(value, safe='')}" for key, value in rest)])


def parse_check_name(name: str, *, encoded: bool = True) -> Identity | None:
    """What the asker says about itself, as sent: pass it through `work.identity.normalise`. None: no check's name.

    `encoded`: segments are percent-encoded, as over HTTP; over TFTP iPXE sends them decoded, and a '%' is a '%'.
    A segment without a known key goes on with the field before it, as iPXE leaves a '/' in a serial number as it
    is. A key that comes again is such a segment too.
    """
    path = name.lstrip("/")
    if not path.startswith(CHECK_PREFIX):
        return None
    fields: dict[str, str] = {}
    last = ""
    segments = path.removeprefix(CHECK_PREFIX).split("/")
    if encoded:  # after the split: a '/' that was encoded belongs to its value
        segments = [unquote(segment, errors="replace") for segment in segments]
    for segment in segments:
        key, dash, value = segment.partition("-")
        field = _FIELDS.get(key, "")
        if dash and field and field not in fields:
            fields[field] = value
            last = field
        elif last:
            fields[last] += "/" + segment
        else:
            return None
    if "mac" in fields:
        fields["mac"] = fields["mac"].replace("-", ":").lower()
    return Identity(**fields)
