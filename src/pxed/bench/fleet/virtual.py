"""A fleet in virtual time: events in order, from the virtual machines to pxed's own state machines and back.

Time jumps from event to event, all chance is seeded: the same plan and trouble are the same run. The server's
computing costs no time; the way has one narrow place, the server's own port or one behind it. Datagrams are simulated
one by one; downloads by HTTP are a fluid (`network.Downloads`) in what the datagrams leave of that place.
"""

import heapq
import time
from collections.abc import Callable

from pxed.bench.firmware import IPXE_HTTP
from pxed.bench.fleet.machine import Fetch, Machine, Send
from pxed.bench.fleet.network import Downloads, Faults, Port, Trouble
from pxed.bench.fleet.plan import Plan, contents, machines
from pxed.bench.fleet.result import Result, summarise
from pxed.bench.fleet.runner import Runner
from pxed.bench.fleet.server import SiteDhcp, VirtualServer
from pxed.boot import Reply
from pxed.wire.iana import BROADCAST, CLIENT_PORT, PXE_PORT, SERVER_PORT

__all__ = ["Simulation", "run"]

SERVER, SITE, FIRST = "10.99.0.1", "10.99.0.2", "10.99.64.0"
_TFTP = 69
_HTTP_HEAD = 200  # bytes of a response beside its body
_SAMPLE = 0.05  # seconds over which the datagrams' share of the port is taken
_EVERY = 0.5  # real seconds between two looks of `progress`
_TICK = 0.0001  # seconds that the engine sleeps at least
_TRANSFERS = 20_000  # at one time, as in the engine


class Simulation(Runner):
    """One run. `work`: there is a job for each machine."""

    def __init__(self, plan: Plan, trouble: Trouble, *, work: bool = True) -> None:
        files = contents(plan, SERVER)
        super().__init__(*machines(plan, files))
        self.plan = plan
        self.server = VirtualServer(SERVER, files, plan.seed, _TRANSFERS, line=plan.rate, pace=plan.pace)
        self.faults = Faults(trouble, plan.seed)
        self.port = Port(plan.rate, plan.queue)
        numbers = {machine.mac: machine.number for machine in self.machines}
        self._site = SiteDhcp(SITE, FIRST, numbers.get)
        self._by_address = {self._site.lease(machine.number): machine for machine in self.machines}
        self._downloads: Downloads[tuple[Machine, bytes]] = Downloads(plan.rate, trouble)
        self._change = 0  # of the downloads: an event for an earlier state of them is stale
        self._sampled, self._sampled_bytes = -_SAMPLE, 0
        self._server_due = float("inf")
        for machine in self.machines:
            self.server.add(machine.identity, 0.0, work=work)

    def run(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Until every machine has its outcome. progress: told now and then how many have."""
        looked, queue, events = time.monotonic(), self.queue, 0
        while self.left and queue:
            self.now, _, call, arguments = heapq.heappop(queue)
            call(*arguments)
            events += 1
            if events % 4096 == 0 and time.monotonic() - looked > _EVERY:
                looked = time.monotonic()
                progress(self.ready)
        progress(self.ready)

    def send(self, machine: Machine, sent: Send) -> None:
        """Over the machine's cable."""
        for arrival in self.faults.arrivals(len(sent.payload), self.now):
            self.at(arrival, self._reach_server, machine, sent)

    # -- the servers -----------------------------------------------------------------------------------------------

    def _reach_server(self, machine: Machine, sent: Send) -> None:
        place, port = sent.to
        if place == BROADCAST:
            answer = self._site.answer(sent.payload)
            if answer is not None:
                for arrival in self.faults.arrivals(len(answer), self.now):
                    self.at(arrival, self.receive, machine, answer, (SITE, SERVER_PORT), CLIENT_PORT)
        if self.now < self.faults.trouble.late or place not in (BROADCAST, SERVER):
            return
        if port == _TFTP:
            self.server.tftp.receive(sent.payload, sent.source, self.now)
            self._serve()
        elif port in (SERVER_PORT, PXE_PORT):
            reply = self.server.dhcp(sent.payload, port, sent.source, self.now)
            if reply is not None:
                self._answer(machine, reply)
                if reply.again:
                    self.at(self.now + reply.again, self._answer, machine, reply)

    def _answer(self, machine: Machine, reply: Reply) -> None:
        self._leave(machine, reply.payload, (SERVER, reply.source_port), reply.destination[1])

    def _leave(self, machine: Machine, payload: bytes, source: tuple[str, int], port: int) -> None:
        """A datagram leaves the server."""
        size = len(payload)
        left = self.port.leave(size, self.now)
        if left is not None:
            for arrival in self.faults.arrivals(size, left):
                self.at(arrival, self.receive, machine, payload, source, port)

    def _serve(self) -> None:
        """What the TFTP sender has to say, a batch at a time while the port takes it, and its next timer."""
        server, now = self.server, self.now
        server.collect(now)
        while (opens := self.port.opens(now)) == now:
            sent = server.tftp.drain(now, 1)
            if not sent:
                break
            for (address, port), payload in sent:
                self._leave(self._by_address[address], payload, (SERVER, _TFTP), port)
        # A full port makes the engine wait, whatever it has to do; who may send at once has been asked above.
        due = opens if opens > now else server.tftp.next_timer()
        if due is not None and due < self._server_due:
            self._server_due = max(due, now + _TICK)
            self.at(self._server_due, self._server_timer, self._server_due)

    def _server_timer(self, due: float) -> None:
        if due == self._server_due:
            self._server_due = float("inf")
            self.server.tftp.on_timer(self.now)
            self._serve()

    # -- downloads -------------------------------------------------------------------------------------------------

    def fetch(self, machine: Machine, fetch: Fetch) -> None:
        """A TCP connection, then a share of the fluid."""
        took = self.faults.connect_time(IPXE_HTTP.shortest, IPXE_HTTP.longest)
        if took is None:
            self.at(self.now + IPXE_HTTP.patience, self.fetched, machine, b"", "no connection by TCP")
        else:
            self.at(max(self.now, self.faults.trouble.late) + took, self._flow, machine, fetch.url)

    def _flow(self, machine: Machine, url: str) -> None:
        body = self.server.http(url, self.now)
        if body is None:
            self.fetched(machine, b"", "404 Not Found")
            return
        self._downloads.begin(len(body) + _HTTP_HEAD, (machine, body), self.now)
        if self.now - self._sampled > 2 * _SAMPLE:  # nobody has looked for a while
            self._sample()
        self._plan_end()

    def _plan_end(self) -> None:
        self._change += 1
        end = self._downloads.next_end()
        if end is not None:
            self.at(max(end, self.now), self._ends, self._change)

    def _ends(self, change: int) -> None:
        if change != self._change:
            return
        for machine, body in self._downloads.ended(self.now):
            self.at(self.now + self.faults.trouble.delay, self.fetched, machine, body, "")
        self._plan_end()

    def _sample(self) -> None:
        """How much of the port the datagrams take."""
        passed = self.now - self._sampled
        if self.plan.rate:
            taken = (self.port.bytes - self._sampled_bytes) * 8 / (self.plan.rate * passed)
            self._downloads.use(taken, self.now)
        self._sampled, self._sampled_bytes = self.now, self.port.bytes
        if self._downloads.next_end() is not None:
            self.at(self.now + _SAMPLE, self._sample)
            self._plan_end()

    # -- figures ---------------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, int]:
        """What the network and the sender counted."""
        tftp = self.server.tftp.statistics()
        return {
            "lost on cables": self.faults.lost,
            "port queue overflows": self.port.dropped,
            **{f"tftp {name}": tftp[name] for name in ("requests", "datagrams", "bytes", "retransmits", "timeouts")},
            **{f"tftp {key}": count for key, count in tftp.items() if key.startswith(("outcome.", "drop.")) and count},
        }


def run(plan: Plan, trouble: Trouble, progress: Callable[[int], None] = lambda done: None) -> Result:
    """Play a fleet to its end."""
    began = time.monotonic()
    simulation = Simulation(plan, trouble)
    simulation.run(progress)
    took = time.monotonic() - began
    return summarise(plan, "virtual", simulation.machines, simulation.power_on, simulation.figures(), took)
