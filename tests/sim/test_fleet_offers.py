"""iPXE's two seconds for a proxy's offer, and the second copy that pxed sends for them."""

from pxed.bench.fleet.network import Trouble
from pxed.bench.fleet.plan import Plan
from pxed.bench.fleet.virtual import Simulation


def _lost(again: bool) -> int:
    plan = Plan(1500, 100, 100, loss=0.05, mix={"ipxe": 1.0})
    simulation = Simulation(plan, Trouble(loss=0.05))
    if not again:
        simulation.at = lambda at, call, *what, _at=simulation.at: (  # type: ignore[method-assign,misc]
            None if call == simulation._answer else _at(at, call, *what)
        )
    simulation.run()
    return sum("no boot offer came in time" in machine.reason for machine in simulation.machines)


def test_the_second_copy_saves_machines_that_lost_the_first() -> None:
    assert _lost(again=False) >= 5
    assert _lost(again=True) <= 1
