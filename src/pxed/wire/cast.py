"""Cast: one image to many machines by IPv4 multicast, and nobody waits for anybody. This text is the specification.

The key words MUST, MUST NOT, SHOULD and MAY are those of RFC 2119. Numbers in datagrams are unsigned and big-endian.

1. Terms
--------
Image
    A manifest (`pxed.images.manifest`), whose BLAKE3 hash of 32 bytes is the image's id, the *root*.
Frame
    What travels of one chunk: the zstd frame that the server's store has of it, byte for byte. A chunk of zeros has
    none. The frames of an image are counted from 0 in the order of the manifest: the *ordinal*. Lengths of frames are
    in the image's layout, which a receiver has by HTTP together with the manifest.
Symbol
    A session has one symbol length S (1436 bytes by default: with 36 of header, 8 of UDP and 20 of IPv4 a packet of
    1500). A frame of L bytes has K = ceil(L / S) source symbols, of which symbol i is the bytes from i * S on; the
    last one may be shorter than S and is not padded in datagrams. K MUST NOT be above 8192.
Block
    The source symbols of a frame lie in B = ceil(K / 192) interleaved blocks: symbol i is number i div B of block
    i mod B. A run of lost datagrams is thereby shared by all blocks.
Parity symbol
    Block b has 64 of them. Parity p (0 to 63) of block b has the symbol number K + p * B + b and S bytes: the sum
    over the block's source symbols j = 0, 1, ... of inv((192 + p) XOR j) times the symbol, in GF(2^8) with the
    polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d), where the last symbol of the frame is padded with zeros to S bytes.
    The matrix of coefficients is a Cauchy matrix (192 + p and j never meet), so any e parity symbols of a block and
    all but e of its source symbols determine the block.
Session
    The sending of one image on one network: an id, a key, an IPv4 group, a UDP port, S, and a report period.
Receiver
    A machine that has joined, by its number in the session.

2. Session life
---------------
A receiver joins by HTTP: POST /pxed/cast/join with {"image": ROOT, "receiver": NAME}, where NAME is a random text of
this run of the receiver. The bearer token of the machine's job goes with it; a site MAY open its images to whoever
asks. The answer is `pxed.types.CastSession`: session, key, group, port, server, the receiver's number, S and the
period. Joining again with the same NAME gives the same number, from whatever address, as long as the session lives;
reports then come from that address, and may be counted anew. 409 means: no multicast, take HTTP.

The key is 16 random bytes for each session. The session's id is `session_id`: the first 8 bytes of BLAKE3(key || root
|| "pxed cast 1"). A receiver MUST compute it and refuse an answer in which it differs: what it joins is a session of
the image that it wants.

The receiver joins the group on the interface that leads to the server. Sessions share the port (1759 by default); a
datagram names its session. The sender is heard all the time: with nothing to send it sends MARK (alive) every 250 ms,
also before a session's start, which may wait for a number of machines, a time or a person. If neither DATA nor MARK
of the session was heard for 2 s, multicast does not reach the machine: it takes HTTP, joins again with growing
pauses, and goes on listening; when the group is heard it changes back. What it has of whole and of partial frames
stays good all the time. So it is when the server is restarted, whose new session has another id and key.

A session ends when no receiver is left, or when the server closes it: each report is then answered by ORDER (closed)
for 10 s. A receiver that is done says so at once (flag *done*), one that leaves says *leaving* three times over, as
datagrams are lost. A receiver that has not reported for 10 s is forgotten as if it had left, and counts again from
its next report on.

3. What is sent: passes
-----------------------
There is no position in a stream, no window and no barrier. Each DATA stands for itself: session, frame, symbol. A
receiver MUST take whatever is of use to it, whoever asked for it and in whatever order it comes.

The sender keeps, for each receiver, what its reports say: frames wanted whole, and symbols wanted of frames held in
part. It sends, in this order of preference,

a. *repairs* of frames of which receivers lack no more than half. Repairs of a frame wait until every receiver that is
   waited for has reported on what was last sent of it (its `highest` is not before the frame's last sequence number)
   or 1.5 periods have passed; while the walk has something to send, repairs take at most half of the symbols;
b. the *walk*: frames that some receiver wants whole, round and round by ordinal; of a frame of which somebody lacks
   more than half, what is lacked. A frame is not repeated before somebody who had heard of its last turn wants it.

A block that receivers have missed in different places is repaired by parity, which serves all at once: as many parity
symbols as the neediest receiver lacks, and some more where many are lost. Their numbers go on from repair to repair,
so that all help who has kept some, and begin anew when the frame is sent whole. Where receivers miss the same symbols
(a burst that hit all), where parity would save little, or when the 64 are used up, the missing symbols are sent
again.

A report speaks of what its receiver had when `highest` was the last sequence number it knew. What it says of frames
that were sent after that is stale and schedules nothing. When a frame or a repair is sent, all that was said of it
before is forgotten: who lost some of it says so again.

When nothing is left to be sent without news, the sender ends the pass: MARK (report now), two of it. Receivers report
within `spread` milliseconds, each after a random share of it; the sender goes on as soon as all have reported, or 50
ms after the spread. While the walk goes on for some, the sender asks in the same way, every so often, as long as
others want nothing whole: they would wait a period for each repair. Nobody is waited for who did not answer twice, or
has not reported for 2.5 periods, or hears nothing; what it wants counts when it is heard again.

Period and spread are those of the last MARK. A receiver's first report follows its joining within the spread, the
others come once in a period, in a phase of its own.

Rate: the sender keeps to a number of bytes of symbols in a second, repairs included, headers not. Nothing in the
protocol lets a receiver slow the group: one that cannot follow loses datagrams, or does not begin frames that its
disk or memory has no room for, whole ones rather than symbols of all, and asks for them later; the server MAY then
move it (section 6). The server lowers the rate when what most receivers lose depends on it.

4. Datagrams
------------
All begin with the same 12 octets:

    0  u8   magic, 0xc5
    1  u8   version, 1
    2  u8   type: 1 DATA, 2 MARK, 3 REPORT, 4 ORDER
    3  u8   zero
    4  u64  session

and carry a MAC of 8 octets: SipHash-2-4 with the session's key, in the octet order of its reference implementation.
Fields that are said to be zero are sent as zero and not looked at, so that they can get a meaning.

DATA, to the group. The MAC covers the header only, so that a sender need not touch the symbol's bytes: they are
proved by the chunk's hash. The sequence number goes up by one with each DATA of the session, whatever it carries,
modulo 2^32; it is there to measure loss.

    12  u32  sequence             24  u16  symbol number
    16  u32  ordinal              26  u16  K
    20  u32  L, stored length     28  u64  MAC of octets 0 to 27
                                  36  ...  the symbol, to the end of the datagram

MARK, to the group, 36 octets. It is not counted by the sequence.

    12  u32  sequence of the last DATA      22  u16  spread, milliseconds
    16  u32  live receivers                 24  u8   kind: 1 alive, 2 report now
    20  u16  report period, milliseconds    25  ...  zero
                                            28  u64  MAC of octets 0 to 27

ORDER, to one receiver, in answer to a REPORT and never larger than it, 36 octets.

    12  u32  receiver                       20  u8   order
    16  u32  number of the report           21  u8   reason
                                            22  ...  zero
                                            28  u64  MAC of octets 0 to 27

    order   1 fetch by HTTP what is missing, and leave the group
            2 listen: take what passes; HTTP when told, or when the group is silent
            3 the session closes: join again
            4 not joined: join again
    reason  1 disk, 2 port speed, 3 loss, 4 few remain, 5 closing, 6 unknown receiver, 7 the sender cannot read what is
            left; others mean nothing in particular

REPORT, to the server's address and port, from the address that joined, 72 to 1472 octets. A report has 1 to 32 parts;
each part speaks for itself, so that losing one loses only what it says.

    12  u32  receiver                       40  u32  chunks whose hash was wrong
    16  u32  number of the report           44  u32  the disk's rate, KiB/s
    20  u8   part, from 0                   48  u16  how full the disk's queue is, in 1000
    21  u8   parts                          50  u16  zero
    22  u16  flags: 1 done, 2 leaving,      52  u32  DATA not taken: queue or memory full
             4 takes HTTP now               56  u32  window: first ordinal
    24  u32  highest sequence               60  u32  window: end (exclusive)
    28  u32  DATA received                  64  ...  entries
    32  u32  DATA expected                  -8  u64  MAC of all before it
    36  u32  chunks proved and written

Counters count from the join, modulo 2^32. *Expected* is by sequence numbers, since the first DATA heard: loss between
two reports is 1 - (received' - received) / (expected' - expected). *Highest* is known from DATA or from MARK; it is 0
until one of them was heard.

Entries say what is missing of the window's frames, ascending by ordinal, none twice. A frame in the window that is
not named is not wanted. A receiver MUST report all that it misses within one report, if need be in windows of several
parts; what does not fit in 32 parts follows in the next report, whose window begins where this one ended. Frames that
it would not begin, as its memory for incomplete ones is nearly full, it SHOULD leave out until there is room.

    0x01  u32 ordinal, u32 count                        these frames are missing whole
    0x02  u32 ordinal, u8 n, n times (u16 first, u16 count)   these symbols are missing of a frame held in part
    0x03  u32 ordinal, u16 bits, ceil(bits / 8) octets  the same as bits: symbol i is bit i mod 8 of octet i div 8

n, counts and bits are not 0; runs ascend and do not touch; a bitmap has a bit set, and none beyond its size; symbols
are source symbols, below 8192. A frame of which very little is here MAY be asked for whole. With parity symbols at
hand, a receiver names in each block only as many of the missing symbols as it still needs, the first ones.

5. Refusal
----------
A datagram is dropped without an answer, and counted under a name (`REASONS`), in this order: *magic*, *version*,
*length* (shorter than any), *type*, *session*, length again (of a type that has a fixed one), *mac*, *fields* (K is
not ceil(L / S) or above 8192, a symbol number beyond K + 64 * B, a part beyond parts, more than 32 parts, a window
that ends before it begins, a queue above 1000, a period of 0, an unknown kind or order), *entries*. The length of a
symbol is looked at after its fields. A version other than 1 is refused by everybody. A change that version 1 would
misread MUST have another number; the join does not name one yet, so a later receiver has to ask for its version there
by a member that servers of version 1 do not know, and which therefore give it a session of version 1.

A sender besides drops, by name, what is no report (*not-a-report*), reports of unknown sessions (*no-session*), from
an IPv4 address other than the one that joined under that number (*address*), older than what it has (*stale*,
*repeated*), of a sequence number that was not sent yet (*future*), and for frames or symbols that the image does not
have (*chunks*): such a part changes nothing. A report of a number that never joined (*receiver*), with a right MAC,
is answered by ORDER (not joined). A receiver besides drops DATA for frames that its layout does not have or of other
length (*layout*), and ORDERs for other numbers, for reports longer ago than its last 16, or from another address than
the server's (*receiver*).

6. Moving a receiver
--------------------
The server MAY move a receiver that costs the others something: its disk, its switch port or its line loses more than
the group's repairs should carry; or it lacks only what the server cannot read. ORDER (listen): its reports are heard
and counted, but schedule nothing; it takes what passes for the others. ORDER (HTTP): it fetches the missing ranges of
the image's data by HTTP (POST /pxed/image/ROOT/data with {"ranges": [[start, stop], ...]}), to the symbol, and leaves
the group. An order is repeated with each report until it is obeyed; a receiver forgets one with which three of its
reports were not answered: it counts again. A receiver that takes HTTP by itself sets the flag *takes HTTP now*, and its
wants schedule nothing meanwhile. Symbols that came by multicast and bytes that came by HTTP fill the same frames.

7. What is proved
-----------------
A complete frame is decompressed and the chunk's BLAKE3 compared with the manifest's, whose own hash is the image's
id, before a byte is written. A frame that is wrong is counted, forgotten and asked for again; if it is wrong twice
the receiver fetches it by HTTP; if it is wrong then, the job fails and names the chunk. What a receiver writes down
to go on after a power loss is a hint: every chunk that it claims is read back and hashed.

8. Security considerations
--------------------------
The MAC keeps out who has no key: it stops forged headers, reports (each would cost the group repairs) and orders. It
does not cover the bytes of a symbol: who hears the group can send a header that it heard again, with other bytes
behind it, and a receiver that still lacks the symbol takes them. That costs it the frame, which is not what its hash
says, and after two such frames HTTP brings the right one; it never puts wrong bytes on a disk. Every receiver has the
key, so one of them can forge all three; the bytes on disk are right nevertheless, and what is lost is time. SipHash
is a MAC of 64 bits for short messages: a guess is right once in 2^64, and sessions are short. The key travels by HTTP
on the boot network, as everything there does: who reads that network can read the image too. Nothing is encrypted.

Reports are accepted from the joined address only, so a captured report replayed by another host does nothing, and
replayed from the same address it is older than what the server has. A sender answers nobody but receivers that hold
the key, with 36 octets for at least 72: it amplifies nothing. DATA of another session has another key. A receiver's
memory for partial frames is bounded and the sender's state is bounded by receivers and frames, whatever is sent to
them.
"""

from blake3 import blake3

from pxed._ext.cast import (
    REASONS,
    Data,
    Mark,
    Order,
    Report,
    Session,
    encode_data,
    encode_mark,
    encode_order,
    encode_report,
)
from pxed._ext.cast import decode as _decode
from pxed.types import Drop

__all__ = [
    "PORT",
    "REASONS",
    "SYMBOL",
    "Data",
    "Mark",
    "Order",
    "Report",
    "Session",
    "decode",
    "encode_data",
    "encode_mark",
    "encode_order",
    "encode_report",
    "session_id",
]

PORT = 1759  # UDP, of all groups and of the server
SYMBOL = 1436  # bytes: a packet of 1500 less IPv4, UDP and our header


def session_id(key: bytes, root: bytes) -> bytes:
    """The 8 bytes that name a session of the image `root` (its manifest's hash) with this key of 16 bytes."""
    return blake3(key + root + b"pxed cast 1").digest(length=8)


def decode(data: bytes | bytearray | memoryview, session: Session) -> Data | Mark | Report | Order | Drop:
    """The datagram in `data`, or a Drop whose reason is one of REASONS; nothing is raised."""
    packet = _decode(data, session)
    return Drop(packet) if isinstance(packet, str) else packet
