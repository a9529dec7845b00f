"""The virtual firmware, byte by byte and second by second."""

import pytest

from pxed.bench.firmware import GRUB_TFTP, IPXE_TFTP, ROWS, SHIM_TFTP, BackOff, Waits, row
from pxed.bench.fleet.boot import boot
from pxed.bench.fleet.machine import Machine, Program
from pxed.bench.fleet.tftp import probe
from pxed.wire import dhcp
from pxed.wire.iana import MessageType, OptionCode
from support.firmware_wire import SERVER, Wire, ack, data, oack, reading

UEFI_TFTP, BIOS_TFTP = row("uefi").tftp, row("bios").tftp


def offer(request: bytes, yiaddr: str = "0.0.0.0", file: bytes = b"", **options: bytes) -> bytes:
    """A DHCP server's or a proxy's answer."""
    asked = dhcp.decode(request)
    assert isinstance(asked, dhcp.Packet)
    kind = MessageType.OFFER if asked.options[OptionCode.MESSAGE_TYPE] == b"\1" else MessageType.ACK
    found = {OptionCode.MESSAGE_TYPE: bytes((kind,)), OptionCode.SERVER_ID: dhcp.address_bytes(SERVER)}
    found |= {OptionCode[name]: value for name, value in options.items()}
    return dhcp.encode(
        dhcp.Packet(op=2, xid=asked.xid, chaddr=asked.chaddr, yiaddr=yiaddr, siaddr=SERVER, file=file,
                    options={int(code): value for code, value in found.items()})
    )  # fmt: skip


def lease(request: bytes) -> bytes:
    return offer(request, "10.0.0.9")


def proxy(request: bytes, file: bytes = b"nbp.efi", **options: bytes) -> bytes:
    return offer(request, file=file, CLASS_ID=b"PXEClient", **options)


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "times", "gives_up"),
    [("uefi", [4, 12, 28], 60), ("bios", [4, 12, 28], 60), ("ipxe", [1, 3, 7], 15), ("shim", [4, 12, 28], 60)],
)
def test_discovers_into_silence(name: str, times: list[float], gives_up: float) -> None:
    wire = Wire(boot, row(name))
    assert len(wire.payloads()) == 1
    assert wire.silence() == times
    assert (wire.machine.outcome, wire.machine.reason) == ("lost", "no DHCP server answered")
    assert wire.now == gives_up


@pytest.mark.parametrize(
    ("habits", "times", "gives_up"),
    [
        (UEFI_TFTP, [4, 8, 12, 16, 20], 24),
        (SHIM_TFTP, [4, 8, 12, 16, 20], 24),
        (IPXE_TFTP, [0.25, 0.75, 1.75, 3.75, 7.75], 15.75),
        (BIOS_TFTP, [5, 10], 15),
    ],
    ids=["EDK2", "shim", "iPXE", "BIOS"],
)
def test_asks_for_a_file_into_silence(habits, times: list[float], gives_up: float) -> None:
    wire = reading(habits)
    assert wire.silence() == times
    assert wire.machine.reason == "no answer to its request"
    assert wire.now == gives_up


def test_grub_asks_forty_times() -> None:
    wire = reading(GRUB_TFTP)
    times = wire.silence()
    assert len(times) == 39
    assert times[:3] == [0.4, 0.82, 1.26]
    assert wire.now == pytest.approx(40 * 0.4 + 0.02 * 780)


@pytest.mark.parametrize(
    ("habits", "times"),
    [
        (UEFI_TFTP, [4, 8, 12, 16, 20]),
        (IPXE_TFTP, [0.25, 0.75, 1.75, 3.75, 7.75]),
        (BIOS_TFTP, [4, 8]),
        (GRUB_TFTP, []),
    ],
    ids=["EDK2", "iPXE", "BIOS", "GRUB"],
)
def test_acknowledges_into_silence(habits, times: list[float]) -> None:
    wire = reading(habits)
    wire.answer(oack(blksize=512), after=0.0)
    assert wire.answer(data(1, bytes(512)), after=0.0) == [ack(1)]
    assert wire.silence() == times
    assert wire.machine.reason == "silence after 512 bytes"
    assert GRUB_TFTP.block.patience == pytest.approx(sum(0.4 + 0.02 * number for number in range(1, 42)))


def test_ipxes_timer_remembers_silences() -> None:
    wire = reading(IPXE_TFTP)
    wire.answer(oack(blksize=512), after=0.0)
    assert wire.silence(until=1.0) == [0.25, 0.75]  # backed off twice, to one second
    for block in (1, 2):  # two answers forgive two silences, and the wait stays what it is
        wire.answer(data(block, bytes(512)), after=0.0)
        assert wire.machine.deadline == pytest.approx(wire.now + 1.0)
    wire.answer(data(3, bytes(512)), after=0.0)
    assert wire.machine.deadline == pytest.approx(wire.now + 0.875)


def test_patience_is_the_sum_of_the_waits() -> None:
    assert BackOff(0.25, 10.0).patience == 15.75
    assert Waits((4.0, 8.0)).patience == 12.0
    assert all(one.dhcp.discover.patience >= 15 for one in ROWS)


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("habits", "request_bytes"),
    [
        (UEFI_TFTP, b"file\0octet\0blksize\x001468\0windowsize\x004\0"),
        (SHIM_TFTP, b"file\0octet\0blksize\x00512\0windowsize\x004\0"),
        (IPXE_TFTP, b"file\0octet\0blksize\x001432\0tsize\x000\0"),
        (GRUB_TFTP, b"file\0octet\0blksize\x001024\0tsize\x000\0"),
        (BIOS_TFTP, b"file\0octet\0blksize\x001456\0"),
    ],
    ids=["EDK2", "shim", "iPXE", "GRUB", "BIOS"],
)
def test_a_file_in_lock_step(habits, request_bytes: bytes) -> None:
    content = bytes(range(256)) * 4
    wire = reading(habits, content=content)
    assert wire.payloads() == [b"\0\1" + request_bytes]
    assert wire.answer(oack(blksize=512)) == [ack(0)]
    assert wire.answer(data(1, content[:512])) == [ack(1)]
    assert wire.answer(data(2, content[512:])) == [ack(2)]
    assert wire.answer(data(3, b"")) == [ack(3)]
    assert (wire.machine.outcome, wire.machine.reason) == ("done", "1024 bytes")


def test_a_server_without_options() -> None:
    wire = reading(IPXE_TFTP)
    assert wire.answer(data(1, bytes(512))) == [ack(1)]
    assert wire.answer(data(2, b"end")) == [ack(2)]
    assert wire.machine.reason == "515 bytes"


def test_edk2_acknowledges_windows_and_every_block_that_it_did_not_expect() -> None:
    wire = reading(UEFI_TFTP)
    wire.answer(oack(blksize=8, windowsize=4))
    assert [wire.answer(data(block, bytes(8))) for block in (1, 2, 3, 4)] == [[], [], [], [ack(4)]]
    assert wire.answer(data(6, bytes(8))) == [ack(4)]
    assert wire.answer(data(7, bytes(8))) == [ack(4)]
    assert [wire.answer(data(block, bytes(8))) for block in (5, 6, 7, 8)] == [[], [], [], [ack(8)]]
    assert wire.answer(data(9, b"")) == [ack(9)]


def test_edk2s_clock_runs_from_what_it_sent_last() -> None:
    wire = reading(UEFI_TFTP)
    wire.answer(oack(blksize=8, windowsize=4))
    wire.answer(data(1, bytes(8)), after=3.0)  # no ACK yet, so no new time
    assert wire.silence(until=10.0) == [4.001, 8.001]


@pytest.mark.parametrize(
    ("habits", "again"),
    [(IPXE_TFTP, ack(2)), (GRUB_TFTP, ack(1)), (BIOS_TFTP, ack(2))],
    ids=["iPXE", "GRUB by its own number", "BIOS"],
)
def test_an_old_block(habits, again: bytes) -> None:
    wire = reading(habits)
    wire.answer(oack(blksize=8))
    wire.answer(data(1, bytes(8)))
    wire.answer(data(2, bytes(8)))
    assert wire.answer(data(1, bytes(8))) == [again]


def test_a_rom_takes_three_strays_for_the_end() -> None:
    wire = reading(BIOS_TFTP)
    wire.answer(oack(blksize=8))
    wire.answer(data(1, bytes(8)))
    wire.answer(data(1, bytes(8)))
    wire.answer(data(1, bytes(8)))
    assert wire.machine.outcome == ""
    wire.answer(data(1, bytes(8)))
    assert wire.machine.outcome == "lost"


def test_block_numbers_roll_over() -> None:
    wire = reading(IPXE_TFTP)
    wire.answer(oack(blksize=8))
    for block in range(1, 65538):
        assert wire.answer(data(block, bytes(8)), after=0.0) == [ack(block)]
    wire.answer(data(65538, b""))
    assert wire.machine.reason == f"{65537 * 8} bytes"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (oack(blksize=2000), "an OACK grants blksize 2000"),
        (oack(multicast=1), "an OACK grants multicast 1"),
        (b"\0\6blksize\0", "a malformed OACK"),
        (b"\0\5\0\1no such file\0", "the server said ERROR 1: no such file"),
        (data(1, b"wrong"), "a wrong byte after offset 0"),
        (data(1, b""), "the file ended at offset 0"),
    ],
)
def test_what_a_server_must_not_say(answer: bytes, reason: str) -> None:
    wire = reading(IPXE_TFTP, content=bytes(100))
    wire.answer(answer)
    assert (wire.machine.outcome, wire.machine.reason) == ("lost", reason)


def test_others_are_not_listened_to() -> None:
    wire = reading(IPXE_TFTP)
    assert wire.answer(data(1, bytes(512)), source=("10.0.0.66", 69)) == []
    assert wire.answer(data(1, bytes(512)), source=(SERVER, 5000)) == [ack(1)]  # the server's port from now on
    assert wire.answer(data(2, bytes(512)), source=(SERVER, 69)) == []
    assert wire.answer(b"\0\3", source=(SERVER, 5000)) == []


@pytest.mark.parametrize(
    ("name", "asked", "end"),
    [
        ("uefi", b"f\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0", b"\0\5\0\x08User aborted the transfer\0"),
        ("bios", b"f\0octet\0tsize\x000\0", b"\0\5\0\0TFTP Aborted\0"),
    ],
)
def test_the_size_probe(name: str, asked: bytes, end: bytes) -> None:
    one = row(name)
    assert one.probe is not None
    sizes = []

    def program(machine: Machine) -> Program[None]:
        machine.address, machine.server = "10.0.0.9", SERVER
        assert one.probe is not None
        with machine.step("probe"):
            sizes.append((yield from probe(machine, "f", one.tftp, one.probe)))

    wire = Wire(program, one)
    assert wire.payloads() == [b"\0\1" + asked]
    assert wire.answer(oack(tsize=1234)) == [end]
    assert sizes == [1234]


# -- DHCP --------------------------------------------------------------------------------------------------------------


def test_ipxe_goes_on_as_soon_as_it_has_both_offers() -> None:
    wire = Wire(boot, row("ipxe"))
    (discover,) = wire.payloads()
    assert wire.answer(lease(discover)) == []
    (request,) = wire.answer(proxy(discover, b"boot.ipxe"))
    asked = dhcp.decode(request)
    assert isinstance(asked, dhcp.Packet)
    assert asked.options[OptionCode.REQUESTED_ADDRESS] == dhcp.address_bytes("10.0.0.9")
    (rrq,) = wire.answer(lease(request))
    assert rrq.startswith(b"\0\1boot.ipxe\0octet\0")


def test_ipxe_takes_the_address_alone_after_two_seconds() -> None:
    wire = Wire(boot, row("ipxe"))
    (discover,) = wire.payloads()
    wire.answer(lease(discover), after=0.5)
    assert wire.silence(until=2.9) == [1.0]
    assert wire.silence(until=3.0) == [3.0]  # the request for the address
    wire.answer(lease(discover.replace(b"\x35\1\1", b"\x35\1\3")))
    assert wire.machine.reason == "an address, but no boot offer came in time"


def test_uefi_waits_for_its_whole_window_and_asks_on_4011() -> None:
    wire = Wire(boot, row("uefi"))
    (discover,) = wire.payloads()
    assert wire.answer(lease(discover)) == []
    assert wire.answer(proxy(discover)) == []
    assert wire.silence(until=4.0) == [4.0]
    request = discover.replace(b"\x35\1\1", b"\x35\1\3")
    wire.answer(lease(request), after=0.0)
    (again, *_) = wire.silence(until=5.0)
    assert again == 5.0  # the first wait on 4011 is a second
    assert wire.sent[0][1].to == (SERVER, 4011)
    assert wire.sent[0][1].source == ("10.0.0.9", 4011)
    (rrq,) = wire.answer(proxy(request), after=0.0, source=(SERVER, 4011))
    assert rrq.startswith(b"\0\1nbp.efi\0octet\0tsize\0")


def test_uefi_without_a_boot_offer_asks_again_and_again() -> None:
    wire = Wire(boot, row("uefi"))
    (discover,) = wire.payloads()
    wire.answer(lease(discover))
    assert wire.silence() == [4, 12, 28]
    assert wire.machine.reason == "no boot offer came"


def test_bit_three_needs_no_4011() -> None:
    wire = Wire(boot, row("bios"))
    (discover,) = wire.payloads()
    wire.answer(lease(discover))
    wire.answer(proxy(discover, b"nbp.0", VENDOR=b"\6\1\x08\xff"))
    wire.silence(until=4.0)
    (rrq,) = wire.answer(lease(discover.replace(b"\x35\1\1", b"\x35\1\3")), after=0.0)
    assert rrq.startswith(b"\0\1nbp.0\0octet\0tsize\x000\0")


def test_a_menu_of_the_local_disk_is_no_work() -> None:
    wire = Wire(boot, row("uefi"))
    (discover,) = wire.payloads()
    wire.answer(lease(discover))
    wire.answer(proxy(discover, b"", VENDOR=b"\6\1\3\x09\7\0\0\4disk\x0a\2\0d\xff"))
    wire.silence(until=4.0)
    wire.answer(lease(discover.replace(b"\x35\1\1", b"\x35\1\3")), after=0.0)
    assert wire.machine.outcome == "no work"


def test_replies_for_others_are_not_taken() -> None:
    wire = Wire(boot, row("ipxe"))
    (discover,) = wire.payloads()
    other = discover[:4] + bytes(4) + discover[8:]  # another transaction
    assert wire.answer(lease(other)) == []
    assert wire.answer(b"no DHCP at all") == []
    assert wire.answer(proxy(discover)) == []
    assert wire.silence(until=1.0) == [1.0]
