"""`pxed bench dhcp`: the whole command in a small lab, the clients against servers that answer wrongly."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from pxed._ext.dhcp_load import Load
from pxed.bench import pxe_clients
from pxed.bench.pxe_clients import KINDS, check_answer, steps, with_answers
from pxed.errors import OperatorError
from pxed.wire import dhcp
from pxed.wire.iana import OptionCode
from support.boot_clients import captured
from support.netns import Net

PXED = (sys.executable, "-c", "from pxed.cli import main; main()", "bench", "dhcp")
SMALL = ("--clients", "6", "--turns", "3", "--single", "6", "--runs", "1")
SERVER = "10.1.0.1"
Answer = Callable[[bytes], list[bytes]]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PXED, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, env=os.environ
    )


@pytest.mark.root
def test_pxed_beside_dnsmasq() -> None:
    done = bench("--lab", *SMALL, "--against", "dnsmasq", "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    ours, theirs = result["servers"]
    assert (ours["server"], theirs["server"]) == ("pxed", "dnsmasq")
    for one in (ours, theirs):
        (run,) = one["runs"]
        # Each turn of two UEFI clients in six has a step more, on 4011.
        assert (run["storm"]["offers"], run["storm"]["answered"]) == (6 * 3, 6 * 3 + 2 * 3)
        assert run["single"]["answered"] == 8
        assert one["lost"] == {}
        assert 0 < one["single_p50"] <= one["single_p99"] <= one["single_slowest"]
    assert theirs["rate_ratio"] == pytest.approx(ours["rate"] / theirs["rate"])


@pytest.mark.root
def test_the_table_is_for_people() -> None:
    done = bench("--lab", *SMALL, "--kind", "bios")
    assert done.returncode == 0, done.stderr
    assert "ANSWERS/S" in done.stdout
    assert "6 clients (bios), 3 turns each, 64 at a time" in done.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("--lab", "--server", "10.0.0.1"), ("--server", "10.0.0.1", "--against", "dnsmasq")]
)
def test_what_does_not_go_together(arguments: tuple[str, ...]) -> None:
    assert bench(*arguments).returncode == 2


@pytest.mark.parametrize(("kind", "name"), [("uefi", "ovmf-discover"), ("ipxe", "ipxe-rom-discover")])
def test_clients_ask_as_the_captured_ones_do(kind: str, name: str) -> None:
    real, ours = dhcp.decode(captured(name)), dhcp.decode(steps(KINDS[kind], 1, SERVER)[0][1])
    assert isinstance(real, dhcp.Packet) and isinstance(ours, dhcp.Packet)
    own = (OptionCode.CLIENT_UUID, OptionCode.CLIENT_ID)
    assert list(ours.options) == list(real.options)
    assert {code: value for code, value in ours.options.items() if code not in own} == {
        code: value for code, value in real.options.items() if code not in own
    }


def offer(**changes: Any) -> bytes:
    """A good answer to client 0's DISCOVER; `changes` are header fields, and options by name."""
    options = {
        OptionCode.MESSAGE_TYPE: b"\2", OptionCode.SERVER_ID: dhcp.address_bytes(SERVER),
        OptionCode.CLASS_ID: b"PXEClient", OptionCode.CLIENT_UUID: pxe_clients._uuid(0), OptionCode.BOOT_FILE: b"x",
    }  # fmt: skip
    options |= {OptionCode[name]: changes.pop(name) for name in list(changes) if name.isupper()}
    header = {"op": 2, "chaddr": pxe_clients._mac(0), "giaddr": "10.1.0.5", "siaddr": SERVER} | changes
    return dhcp.encode(dhcp.Packet(options={int(code): value for code, value in options.items()}, **header))


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (offer(op=1), "is no reply"),
        (offer(chaddr=b"\2\0\0\0\0\1"), "is for another machine"),
        (offer(MESSAGE_TYPE=b"\5"), "is not the message that was asked for"),
        (offer(CLASS_ID=b"HTTPClient"), "is not a PXE server's"),
        (offer(SERVER_ID=b"\1\1\1\1"), "names another server"),
        (offer(CLIENT_UUID=bytes(17)), "has another machine's UUID"),
        (offer(giaddr="10.1.0.6"), "is for another relay"),
        (offer(siaddr="0.0.0.0"), "has nothing to boot"),
        (b"nonsense", "no DHCP message"),
    ],
)
def test_an_answer_that_no_machine_could_use_is_told(answer: bytes, what: str) -> None:
    step = steps(KINDS["bios"], 0, "10.1.0.5")[0]
    check_answer(step, offer(), SERVER, 0, "10.1.0.5")
    with pytest.raises(OperatorError, match=what):
        check_answer(step, answer, SERVER, 0, "10.1.0.5")


class Server:
    """Answers on port 67 of a namespace by a function of the request."""

    def __init__(self, net: Net, answer: Answer) -> None:
        self.side, self.clients = net.namespace("server"), net.namespace("clients")
        net.link(self.side, "eth0", self.clients, "eth0")
        self.side.address("eth0", f"{SERVER}/24")
        self.clients.address("eth0", "10.1.0.5/24")
        with self.side:
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.bind((SERVER, 67))
        self.answer = answer
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while data := self.sock.recv(2000):
            for reply in self.answer(data):
                self.sock.sendto(reply, ("10.1.0.5", 67))

    def close(self) -> None:
        with self.side, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (SERVER, 67))
        self.thread.join(60)
        self.sock.close()


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as made:
        yield made


def right(data: bytes) -> bytes:
    """The good answer, to whoever asks."""
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    return (
        offer(chaddr=packet.chaddr, CLIENT_UUID=packet.options[OptionCode.CLIENT_UUID])[:4]
        + data[4:8]
        + offer(chaddr=packet.chaddr, CLIENT_UUID=packet.options[OptionCode.CLIENT_UUID])[8:]
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (lambda data: [right(data)], (9, 0, 0, {})),
        (lambda data: [right(data), right(data)], (9, 0, 9, {})),
        (lambda data: [right(data)[:4] + b"\xff\xff\xff\xff" + right(data)[8:], right(data)], (9, 0, 9, {})),
        (lambda data: [], (0, 9, 0, {})),
        (lambda data: [right(data)[:-1]], (0, 0, 0, {"has 299 bytes, not 300": 9})),
        (lambda data: [right(data)[:243] + b"\0" + right(data)[244:]], (0, 0, 0, {"differs at offset 243": 9})),
    ],
    ids=["right", "twice", "another's", "silent", "short", "one byte"],
)
def test_every_answer_is_counted_as_what_it_is(
    net: Net, answer: Answer, wanted: tuple[int, int, int, dict[str, int]]
) -> None:
    server = Server(net, answer)
    own = [steps(KINDS["bios"], client, "10.1.0.5") for client in range(3)]
    clients = [with_answers(said, [offer()], (0, "10.1.0.5"), client, "10.1.0.5") for client, said in enumerate(own)]
    patience = 60.0 if wanted[0] or wanted[3] else 0.05
    with server.clients, closing(Load(SERVER, clients, turns=3, outstanding=2, patience=patience)) as load:
        seconds, times, answered, unanswered, strange, wrong, refused, learned = load.run()
    server.close()
    assert (answered[67], unanswered, wrong) == (wanted[0], wanted[1], wanted[3])
    assert strange in (wanted[2], wanted[2] - 1)  # the very last one comes when nobody listens any more
    assert (answered[4011], refused, learned) == (0, 0, {})
    assert times == sorted(times) and len(times) == wanted[0]
    assert seconds > 0
    with pytest.raises(RuntimeError):
        load.run()


@pytest.mark.parametrize(
    ("clients", "options"),
    [
        ([], {}),
        ([[]], {}),
        ([[(67, b"short", b"")]], {}),
        ([[(67, bytes(300), b"x")]], {}),
        ([[(68, bytes(300), b"")]], {}),
        ([[(67, bytes(300), b"")]], {"turns": 0}),
        ([[(67, bytes(300), b"")]], {"turns": 1 << 20}),
        ([[(67, bytes(300), b"")]], {"outstanding": 0}),
    ],
)
def test_a_storm_that_cannot_be(clients: list[list[tuple[int, bytes, bytes]]], options: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Load(SERVER, clients, **options)  # type: ignore[arg-type]
