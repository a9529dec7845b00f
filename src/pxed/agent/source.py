"""Where an image comes from: a server, what it answers, and how patient we are with it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from pxed.agent.failure import AgentFailure
from pxed.agent.fetcher import Fetcher
from pxed.agent.plan import Plan, make_plan
from pxed.agent.progress import Tally
from pxed.agent.server import TIMEOUT, Connection, Patience, Refused
from pxed.images.manifest import Manifest, ManifestError
from pxed.types import CastJoin, CastSession, Step

__all__ = ["Source"]

JOIN_TIMEOUT = 5.0  # seconds: a session goes on without us, and HTTP waits for nobody


class Source:
    """One image of one server. `run` is a job's bearer token, or empty for images that everybody may have."""

    def __init__(
        self,
        server: str,
        image: str,
        tally: Tally,
        patience: Callable[[], Patience],
        *,
        run: str = "",
        me: str = "",
        first: Connection | None = None,
    ) -> None:
        """`me`: a random id of this run, under which it joins sessions.

        `first`: what one thread asks until it is `prepared` goes over this connection, for each new one takes its
        time, much of it where packets are lost.
        """
        self.image = image
        self._server, self._tally, self._patience, self._run, self._me = server, tally, patience, run, me
        self._first = first

    def connection(self, timeout: float = TIMEOUT) -> Connection:
        """A connection of one's own."""
        return Connection(self._server, self._run, timeout)

    def prepared(self) -> None:
        """The image's data is next, by several threads: the first connection is closed. Harmless twice."""
        if self._first is not None:
            self._first.close()
            self._first = None

    def fetcher(self) -> Fetcher:
        """Chunks by HTTP, for one thread."""
        return Fetcher(self._first or self.connection(), self.image, self._tally, self._patience())

    def _at_hand(self, timeout: float = TIMEOUT) -> AbstractContextManager[Connection]:
        return nullcontext(self._first) if self._first else self.connection(timeout)

    def plan(self) -> Plan:
        """What there is to do. Raises AgentFailure when the server has no such image, or another."""
        name = f"pxed/image/{self.image}"
        try:
            with self._at_hand() as connection:
                data = self._patience().call(lambda: connection.fetch(f"{name}/manifest"))
                manifest = Manifest.decode(data, self.image)
                layout = self._patience().call(lambda: connection.fetch(f"{name}/layout"))
            return make_plan(manifest, layout)
        except Refused as refusal:
            raise AgentFailure(Step.TARGET, f"The server does not give the image: {refusal}") from refusal
        except ManifestError as error:
            raise AgentFailure(Step.TARGET, f"The server's image is damaged: {error}.") from error

    def join(self) -> CastSession:
        """Take part in the image's session, once or again. Raises Refused where there is none, Unreachable."""
        with self._at_hand(JOIN_TIMEOUT) as connection:
            return connection.join(CastJoin(self.image, self._me))
