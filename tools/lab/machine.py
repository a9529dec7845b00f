"""A virtual workstation: QEMU without KVM, real BIOS or UEFI firmware, its serial console followed line by line."""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.network import Segment
from lab.proc import spawn, stop

OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
_ESCAPES = re.compile(r"\x1b(\[[0-9;=?]*[A-Za-z]|[()][A-Z0-9]|c)")


@dataclass(frozen=True)
class Hardware:
    """What the machine is made of."""

    name: str
    firmware: str  # "bios" or "uefi"
    mac: str
    disk: Path  # raw
    uuid: str
    serial: str
    memory: int = 1024  # MiB
    disk_bus: str = "virtio"  # or "nvme", "sata"
    extra: tuple[str, ...] = ()  # further QEMU arguments


class Machine:
    """A running machine. `lines` grows as its serial console speaks."""

    def __init__(self, hardware: Hardware, segment: Segment, directory: Path) -> None:
        self.hardware = hardware
        self.directory = directory
        self.console = directory / f"{hardware.name}.console"
        self.lines: list[tuple[float, str]] = []
        self.on_line: Callable[[float, str], None] | None = None
        self._changed = threading.Condition()
        self._ended = False
        directory.mkdir(parents=True, exist_ok=True)
        self._nvram = directory / f"{hardware.name}.nvram"
        if hardware.firmware == "uefi" and not self._nvram.exists():
            shutil.copyfile(OVMF_VARS, self._nvram)
        self._segment = segment
        self.tap = segment.tap()
        self._process: subprocess.Popen[bytes] | None = None

    def power_on(self) -> None:
        """Start the machine, as if its power button were pressed."""
        assert self._process is None, "the machine is on"
        self._ended = False
        self._process = spawn(
            self._arguments(), netns_pid=self._segment.switch.pid,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._follow, args=(self._process,), daemon=True)
        self._reader.start()

    def power_off(self) -> None:
        """Cut the power: nothing is flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            stop(self._process)
            self._process = None

    def wait_for(self, pattern: str, timeout: float, since: int = 0) -> re.Match[str]:
        """The first console line from number `since` on that matches; TimeoutError with the last lines otherwise."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for _, line in self.lines[since:]:
                    if match := wanted.search(line):
                        return match
                since = len(self.lines)
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    raise TimeoutError(
                        f"{self.hardware.name}: no line matches {pattern!r}"
                        f" ({'QEMU ended' if self._ended else f'{timeout:.0f} s'}). Last lines:\n{self.tail()}"
                    )
                self._changed.wait(left)

    def mark(self) -> int:
        """The number of the next line, for `wait_for(since=...)`."""
        return len(self.lines)

    def tail(self, count: int = 40) -> str:
        """The last lines of the console."""
        return "\n".join(line for _, line in self.lines[-count:])

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with self.console.open("ab") as copy:
            for raw in process.stdout:
                copy.write(raw)
                copy.flush()
                text = _ESCAPES.sub("", raw.decode(errors="replace")).replace("\r", "").rstrip("\n")
                now = time.time()
                with self._changed:
                    self.lines.append((now, text))
                    self._changed.notify_all()
                if self.on_line is not None:
                    self.on_line(now, text)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _arguments(self) -> list[str]:
        hardware = self.hardware
        arguments = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", str(hardware.memory),
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
            "-uuid", hardware.uuid,
            "-smbios", f"type=1,manufacturer=pxed,product=lab,serial={hardware.serial},uuid={hardware.uuid}",
            "-netdev", f"tap,id=net,ifname={self.tap},script=no,downscript=no",
            "-drive", f"file={hardware.disk},if=none,id=disk,format=raw,cache=unsafe,discard=unmap",
            "-device", "virtio-rng-pci",
        ]  # fmt: skip
        nic = f"virtio-net-pci,netdev=net,mac={hardware.mac},bootindex=1"
        if hardware.firmware == "uefi":
            arguments += [
                "-machine", "q35",
                "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}",
                "-drive", f"if=pflash,format=raw,unit=1,file={self._nvram}",
                "-device", nic + ",romfile=",  # no option ROM: OVMF's own PXE stack
                # The lab has no IPv6 router: without this OVMF adds a minute of IPv6 attempts to a boot without work.
                "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
            ]  # fmt: skip
        else:
            arguments += ["-machine", "q35,graphics=off", "-device", nic]
        disk = {
            "virtio": "virtio-blk-pci,drive=disk,bootindex=2",
            "nvme": "nvme,drive=disk,serial=pxed-lab,bootindex=2",
            "sata": "ide-hd,drive=disk,bootindex=2",
        }[hardware.disk_bus]
        return [*arguments, "-device", disk, *hardware.extra]
