"""Text from the network, made safe to show."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pxed.text import printable


def test_ordinary_names_stay() -> None:
    for text in ("boot/efi x64.efi", "Müller, Zürich", "電腦教室", "C:\\boot\\bcd", ""):
        assert printable(text) == text


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("\x1b[2J\x9b\x7f\r\n\u202e\u2066\u200b\u2028\udc80") == (
        r"\x1b[2J\x9b\x7f\r\n\u202e\u2066\u200b\u2028\udc80"
    )
    assert printable("a\nb\tc\rd", keep="\n\t") == "a\nb\tc\\rd"


@given(st.text(st.characters()))
def test_no_control_or_direction_mark_is_left(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    shown.encode()
