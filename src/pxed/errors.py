"""The three families of errors. Any other exception that leaves pxed is a bug.

- `OperatorError`: the person who runs pxed can mend it (a wrong config, a missing file).
- `PeerError`: the other side of a connection sent nonsense. Packet codecs never raise it:
  on the packet path bad input is a counted `Drop`.
- `InternalError`: ours. An invariant is broken; report it.
"""

__all__ = ["ConfigError", "InternalError", "NotFoundError", "OperatorError", "PeerError", "RefusedError"]


class PxedError(Exception):
    """Base of all errors that pxed raises on purpose. The text is one or more plain sentences."""


class OperatorError(PxedError):
    """The operator can mend this; the text says what is wrong and what was expected."""


class ConfigError(OperatorError):
    """A mistake in the configuration file; the text names file, line, key and what was expected."""


class NotFoundError(OperatorError):
    """What was asked for by name does not exist (a machine, a job, an image)."""


class GoneError(OperatorError):
    """What should be there is lost; asking again does not help."""


class RefusedError(OperatorError):
    """The request is understood and refused in the present state; the text says why."""


class PeerError(PxedError):
    """The peer broke its protocol; the connection to it is given up, nobody else's."""


class InternalError(PxedError):
    """An invariant of ours does not hold."""
