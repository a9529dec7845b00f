"""Text from the network, made safe to show. Imports nothing of pxed."""

__all__ = ["printable"]


def printable(text: str, keep: str = "") -> str:
    r"""`text` with every character escaped (as `\x1b`, `\u202e`) that could play with a terminal or forge a line.

    Those are all that are not printable: C0 and C1 controls, DEL, line ends, direction marks, invisible characters,
    surrogates. `keep` names some that may stay, such as the line ends of a traceback.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)
