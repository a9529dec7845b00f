"""One chunk: 1 MiB of disk address space, its BLAKE3 name, and its zstd frame.

The agent imports this module: only zstandard, blake3 and the error types may be imported here.

A chunk travels and is stored as one zstd frame that states its content size, carries no dictionary and no
checksum of its own: the BLAKE3 of the raw bytes, which the manifest holds, is the one proof of a chunk.
"""

import zstandard
from blake3 import blake3

from pxed.errors import PeerError

__all__ = ["CHUNK", "DIGEST", "MAX_STORED", "ChunkError", "Compressor", "Decompressor", "digest_of", "is_zero"]

CHUNK = 1 << 20
"""Bytes of disk address space in a chunk. The last chunk of a disk may be shorter."""

DIGEST = 32
"""Bytes of a chunk's name."""

MAX_STORED = CHUNK + CHUNK // 256 + 64
"""No honest frame is longer: zstd's bound for incompressible input (ZSTD_compressBound), and a little room."""

DEFAULT_LEVEL = 3
"""zstd level. Measured on system trees: -3 gives most of the ratio at about 250 MB/s and core; decompression
costs the same at every level."""

_ZEROS = bytes(CHUNK)


class ChunkError(PeerError):
    """A stored chunk is not what its name says: damaged, truncated, or made to hurt."""


def digest_of(raw: bytes | bytearray | memoryview) -> bytes:
    """The BLAKE3 digest of raw bytes: the chunk's name, 32 bytes."""
    return blake3(raw).digest()


def is_zero(raw: bytes | bytearray) -> bool:
    """Whether all bytes are zero. At most CHUNK bytes."""
    # A comparison of two equal-length byte strings is a memcmp; a memoryview's is a slow loop.
    return raw == (_ZEROS if len(raw) == CHUNK else bytes(len(raw)))


class Compressor:
    """Makes frames. Not for use by two threads at once: one per thread."""

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        self._zstd = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)

    def compress(self, raw: bytes | bytearray | memoryview) -> bytes:
        """One frame of at most MAX_STORED bytes, also where nothing is gained."""
        return self._zstd.compress(raw)


class Decompressor:
    """Opens frames and proves them. Not for use by two threads at once: one per thread."""

    def __init__(self) -> None:
        # The window of a frame that states its content size is never larger than that size.
        self._zstd = zstandard.ZstdDecompressor(max_window_size=CHUNK)

    def decompress(self, frame: bytes | bytearray | memoryview, length: int, digest: bytes) -> bytes:
        """The raw bytes of a chunk: exactly `length` bytes whose BLAKE3 is `digest`.

        The stated size is checked before anything is decompressed, so that a frame cannot ask for more memory
        than one chunk. Raises ChunkError when the frame is anything else than that chunk.
        """
        if not 0 < length <= CHUNK or len(frame) > MAX_STORED:
            raise ChunkError(
                f"chunk {digest.hex()}: {len(frame)} stored bytes for {length} raw bytes are out of bounds"
            )
        try:
            stated = zstandard.frame_content_size(frame)
            if stated != length:
                raise ChunkError(f"chunk {digest.hex()}: its frame states {stated} bytes, expected {length}")
            raw = self._zstd.decompress(frame, max_output_size=length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ChunkError(f"chunk {digest.hex()}: its frame is damaged ({error})") from None
        if len(raw) != length or digest_of(raw) != digest:
            raise ChunkError(f"chunk {digest.hex()}: its bytes are not those that its name stands for")
        return raw
