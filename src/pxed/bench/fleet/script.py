"""The part of iPXE's script language that pxed's scripts use, run by a virtual machine. Sans-I/O.

A failing command ends a script unless `||` follows. `chain --replace` goes on with what was fetched.
"""

from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

from pxed.bench.firmware import IPXE_TFTP
from pxed.bench.fleet.machine import Lost, Machine, NoWork, Program
from pxed.bench.fleet.tftp import read
from pxed.boot import scripts

__all__ = ["load", "run"]

_STEPS = {scripts.FIRST_SCRIPT: "script", scripts.KERNEL: "kernel", scripts.INITRAMFS: "initramfs"}
_MANY = 10_000  # commands of one machine: a script that goes round for ever is a mistake of ours


def load(machine: Machine, url: str) -> Program[bytes]:
    """Fetch what a URL names, as a step of its own. Raises Lost."""
    parts = urlsplit(url)
    path = parts.path.lstrip("/")
    name = "check" if path.startswith(scripts.CHECK_PREFIX) else _STEPS.get(path, path)
    with machine.step(name):
        if parts.scheme == "http":
            return (yield from machine.fetch(url))
        machine.server = parts.hostname or machine.server
        return (yield from read(machine, unquote(path), IPXE_TFTP))


def run(machine: Machine, script: bytes) -> Program[None]:
    """Until the kernel starts. Raises NoWork when the script boots the local disk, Lost when it gives up."""
    interpreter = _Interpreter(machine, script)
    yield from interpreter.run()


class _Interpreter:
    def __init__(self, machine: Machine, script: bytes) -> None:
        self._machine = machine
        self._platform = "pcbios" if machine.row.arch == 0 else "efi"
        self._settings: dict[str, str] = {}
        self._begin(script)
        self._failure = ""  # of the last fetch
        self._said = ""

    def _begin(self, script: bytes) -> None:
        self._lines = [line.strip() for line in script.decode(errors="replace").splitlines()]
        if not self._lines or self._lines[0] != "#!ipxe":
            raise Lost("what came is no iPXE script")
        self._at = 1

    def run(self) -> Program[None]:
        for _ in range(_MANY):
            if self._at >= len(self._lines):
                raise Lost(self._failure or "the script ended without a boot")
            line = self._lines[self._at]
            self._at += 1
            if not line or line.startswith((":", "#")):
                continue
            good = yield from self._line(line)
            if good is None:
                return
            if not good:
                raise Lost(self._failure or f"the script failed at: {line}")
        raise Lost("the script does not end")

    def _line(self, line: str) -> Program[bool | None]:
        """One line, with && and ||: whether it went well; None when the machine boots what it has loaded."""
        good: bool | None = True
        for operator, words in _commands(line):
            if (operator == "||" and good) or (operator == "&&" and not good):
                continue
            good = (yield from self._command(words)) if words else True
            if good is None:
                return None
        return good

    def _command(self, words: list[str]) -> Program[bool | None]:
        name, *arguments = words
        if name in ("chain", "kernel", "initrd"):
            return (yield from self._fetch(name, arguments))
        if name == "sleep":
            yield from self._machine.sleep(float(arguments[0]))
        elif name == "boot":
            return None
        elif name in ("exit", "sanboot"):
            raise Lost(self._failure) if self._failure else NoWork(self._said or "the script boots the local disk")
        else:
            return self._simple(name, arguments)
        return True

    def _simple(self, name: str, arguments: list[str]) -> bool:
        if name == "echo":
            self._said = " ".join(arguments)
        elif name == "goto":
            self._at = self._lines.index(f":{arguments[0]}") + 1
        elif name == "inc":
            self._settings[arguments[0]] = str(int(self._settings.get(arguments[0], "0")) + 1)
        elif name == "iseq":
            return self._expand(arguments[0]) == self._expand(arguments[1])
        elif name == "clear":
            return self._settings.pop(arguments[0], None) is not None
        elif name != "imgfree":
            raise Lost(f"the script uses a command that is not known: {name}")
        return True

    def _fetch(self, name: str, arguments: list[str]) -> Program[bool]:
        url = next(self._expand(word) for word in arguments if "://" in word)
        try:
            body = yield from load(self._machine, url)
        except Lost as why:
            self._failure = f"{self._machine.steps[-1].name}: {why}"
            return False
        self._failure = ""
        if name == "chain":
            self._begin(body)
        return True

    def _expand(self, text: str) -> str:
        """Settings in ${}; of a machine's identity those that pxed asks for."""
        identity = self._machine.identity
        values = {
            "mac:hexhyp": identity.mac.replace(":", "-"),
            "uuid": identity.uuid,
            "serial:uristring": quote(identity.serial, safe=""),
            "manufacturer:uristring": quote(identity.manufacturer, safe=""),
            "product:uristring": quote(identity.product, safe=""),
            "platform": self._platform,
            **self._settings,
        }
        while "${" in text:
            before, _, rest = text.partition("${")
            name, _, after = rest.partition("}")
            text = before + values.get(name, "") + after
        return text


def _commands(line: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a line, each with the operator before it."""
    operator, words = "", list[str]()
    for word in line.split():
        if word in ("&&", "||"):
            yield operator, words
            operator, words = word, []
        else:
            words.append(word)
    yield operator, words
