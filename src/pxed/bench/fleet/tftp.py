"""How firmware reads a file by TFTP (RFC 1350, 2347-2349, 7440), with the habits of the table. Sans-I/O."""

from pxed.bench.firmware import BackOff, Clock, Probe, Stray, TftpHabits
from pxed.bench.fleet.machine import Datagram, Lost, Machine, Program

__all__ = ["Refused", "probe", "read"]

_PORT = 69
_DATA, _ERROR, _OACK = 3, 5, 6
_WRAP = 1 << 16


class Refused(Lost):
    """The server answered with ERROR."""


class _Timer:
    """The clock of a client during one transfer: when to send again, and when to give up."""

    def __init__(self, clock: Clock) -> None:
        self.deadline = 0.0
        self._began = 0.0
        self._silences = 0
        self._waits = clock.tries()
        self._backs_off = isinstance(clock, BackOff)
        self._shortest, self._longest = (clock.shortest, clock.longest) if isinstance(clock, BackOff) else (0.0, 0.0)
        self._wait = self._shortest

    def use(self, clock: Clock) -> None:
        """Go on with another row of times; a clock that backs off is the same one for all packets."""
        if not self._backs_off:
            self._waits = clock.tries()

    def sent(self, now: float) -> None:
        """A new packet left."""
        if self._backs_off:
            self._wait = max(self._wait, self._shortest)
            self.deadline = now + self._wait
        else:
            self._silences = 0
            self.deadline = now + self._waits[0]
        self._began = now

    def answered(self, now: float) -> None:
        """Its answer came."""
        if not self._backs_off:
            return
        if self._silences:
            self._silences -= 1
        else:
            self._wait += (now - self._began) / 2 - self._wait / 8

    def expired(self, now: float) -> bool:
        """Nothing came; True: give up."""
        self._silences += 1
        if self._backs_off:
            self._wait *= 2
            if self._wait > self._longest:
                return True
            self._began = now
            self.deadline = now + self._wait
            return False
        if self._silences == len(self._waits):
            return True
        self.deadline = now + self._waits[self._silences]
        return False


def _rrq(name: str, options: dict[str, int]) -> bytes:
    words = [name, "octet", *(word for key, value in options.items() for word in (key, str(value)))]
    return b"\0\1" + b"".join(word.encode() + b"\0" for word in words)


def _ack(block: int) -> bytes:
    return b"\0\4" + (block % _WRAP).to_bytes(2, "big")


def _error(code: int, text: str) -> bytes:
    return b"\0\5" + code.to_bytes(2, "big") + text.encode() + b"\0"


def _options(habits: TftpHabits) -> dict[str, int]:
    """What the request that reads asks for."""
    options = {"blksize": habits.blksize}
    if habits.tsize:
        options["tsize"] = 0
    if habits.windowsize > 1:
        options["windowsize"] = habits.windowsize
    return options


def _granted(payload: bytes, asked: dict[str, int]) -> dict[str, int]:
    """The options of an OACK. Raises Lost for what EDK2 calls malformed: not asked for, or more than asked for."""
    words = payload[2:].split(b"\0")[:-1]
    try:
        found = {words[i].decode().lower(): int(words[i + 1]) for i in range(0, len(words), 2)}
    except (IndexError, ValueError):
        raise Lost("a malformed OACK") from None
    for name, value in found.items():
        if name not in asked or (name != "tsize" and value > asked[name]):
            raise Lost(f"an OACK grants {name} {value}")
    return found


def probe(machine: Machine, name: str, habits: TftpHabits, how: Probe) -> Program[int]:
    """Ask for a file's size. Raises Lost or Refused."""
    wanted = _options(habits)
    asked = {"tsize": 0} | {option: wanted[option] for option in how.options if option in wanted}
    transfer = _Transfer(machine, _rrq(name, asked), habits)
    while True:
        payload = yield from transfer.receive()
        opcode = payload[1]
        if opcode == _ERROR:
            raise Refused(_error_text(payload))
        size = _granted(payload, asked).get("tsize") if opcode == _OACK else None
        if size is None:
            raise Lost("the size was not told")
        transfer.say(_error(how.error, how.text))
        return size


def read(machine: Machine, name: str, habits: TftpHabits) -> Program[bytes]:
    """The whole of a file, each byte compared where it is known. Raises Lost or Refused."""
    asked = _options(habits)
    transfer = _Transfer(machine, _rrq(name, asked), habits)
    known = machine.known.get(name.lstrip("/"))
    step = machine.steps[-1]
    parts: list[bytes] = []
    blksize, window, block, offset, unacked = 512, 1, 0, 0, 0  # block: the last in order
    while True:
        payload = yield from transfer.receive(block, offset)
        opcode = payload[1]
        if opcode == _ERROR:
            raise Refused(_error_text(payload))
        if opcode == _OACK:
            if block == 0:
                granted = _granted(payload, asked)
                blksize, window = granted.get("blksize", 512), granted.get("windowsize", 1)
                transfer.heard(habits.block)
                transfer.say(_ack(0))
            continue
        number = payload[2] << 8 | payload[3]
        if number != (block + 1) % _WRAP:
            unacked = 0
            transfer.stray(number, block)
            continue
        data = payload[4:]
        if known is None:
            parts.append(data)
        elif not known.startswith(data, offset):
            raise Lost(f"a wrong byte after offset {offset}")
        block += 1
        offset += len(data)
        step.bytes += len(data)
        unacked += 1
        last = len(data) < blksize
        transfer.heard(habits.block)
        if unacked == window or last:
            transfer.say(_ack(block))
            unacked = 0
        if last:
            break
    if known is not None and offset != len(known):
        raise Lost(f"the file ended at offset {offset}")
    machine.port = 0
    return b"".join(parts) if known is None else known


def _error_text(payload: bytes) -> str:
    code, text = int.from_bytes(payload[2:4], "big"), payload[4:].split(b"\0")[0].decode(errors="replace")
    return f"the server said ERROR {code}: {text}"


class _Transfer:
    """The packets of one transfer: its port, the server's, the last packet, and the clock."""

    def __init__(self, machine: Machine, request: bytes, habits: TftpHabits) -> None:
        self._machine = machine
        self._habits = habits
        self._timer = _Timer(habits.request)
        self._server = 0  # its port, once it has answered
        self._counted = 0  # strays since the last block, where they count
        machine.open_port()
        self.say(request)

    def say(self, packet: bytes) -> None:
        """Send something new."""
        machine = self._machine
        self._last = packet
        machine.send(packet, (machine.server, self._server or _PORT))
        self._timer.sent(machine.now)

    def heard(self, clock: Clock) -> None:
        """The answer to the last packet came."""
        self._timer.answered(self._machine.now)
        self._timer.use(clock)
        self._counted = 0
        if not self._habits.resends:  # it listens anew after each block
            self._timer.sent(self._machine.now)

    def receive(self, block: int = 0, offset: int = 0) -> Program[bytes]:
        """The next datagram of the server; sends again when none comes. Raises Lost."""
        machine, timer = self._machine, self._timer
        while True:
            event = yield timer.deadline
            if event is None:
                if timer.expired(machine.now):
                    raise Lost(f"silence after {offset} bytes" if self._server else "no answer to its request")
                if self._habits.resends or not self._server:
                    machine.repeated()
                    machine.send(self._last, (machine.server, self._server or _PORT))
                continue
            if not isinstance(event, Datagram) or event.source[0] != machine.server or len(event.payload) < 4:
                continue
            if self._server == 0:
                self._server = event.source[1]
            elif event.source[1] != self._server:
                continue
            if event.payload[1] in (_DATA, _ERROR, _OACK):
                return event.payload

    def stray(self, number: int, block: int) -> None:
        """DATA that is not the next. Raises Lost."""
        early = 0 < (number - block) % _WRAP < _WRAP // 2
        kind = self._habits.stray
        if kind is Stray.ACK_IT:
            if not early:
                self._machine.send(_ack(number), (self._machine.server, self._server))
            return
        if kind is Stray.COUNT:
            self._counted += 1
            if early or self._counted == len(self._habits.block.tries()):
                raise Lost(f"block {number} came after block {block}")
        self._timer.answered(self._machine.now)
        self.say(_ack(block))
