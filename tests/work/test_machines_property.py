"""Any order of identities, with MACs, UUIDs and serials mixed at will: the indices agree with the records.

Invariants: a MAC is on one record; every record is found by its MACs; what was learned is the same after a reload; a
second look at the same identity changes nothing but last_seen.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from pxed.errors import RefusedError
from pxed.types import Identity
from pxed.work.identity import normalise
from support.work import START, Driver, mac_of, make_config, opened, run, uuid_of

identities = st.builds(
    normalise,
    mac=st.sampled_from(["", *map(mac_of, range(4))]),
    uuid=st.sampled_from(["", "", *map(uuid_of, range(4)), "03000200-0400-0500-0006-000700080009"]),
    serial=st.sampled_from(["", "", "AAA111B", "BBB222C"]),
    product=st.sampled_from(["", "OptiPlex"]),
)
steps = st.lists(st.tuples(st.sampled_from(["seen", "seen", "known", "add"]), identities), max_size=25)


def check_indices(machines):
    macs = [mac for machine in machines for mac in machine.macs]
    assert len(macs) == len(set(macs))
    for machine in machines:
        assert machine.macs or machine.uuid or machine.serial or machine.known
        for mac in machine.macs:
            assert machines.resolve(Identity(mac=mac)).machine == machine
    assert machines.next_id > max((machine.id for machine in machines), default=0)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_indices_agree_with_the_records(steps):
    driver = Driver()
    for what, identity in steps:
        if what == "add":
            try:
                _, change = driver.registry.machines.add(identity, "", driver.now)
            except RefusedError:
                continue
            driver.take(change)
        else:
            machine = driver.seen(identity, known=what == "known")
            check_indices(driver.registry.machines)
            before = list(driver.registry.machines)
            again, change = driver.registry.machines.learn(identity, driver.now, known=False)
            assert again == machine and not change.removed
            driver.take(change)
            assert list(driver.registry.machines) == before
        check_indices(driver.registry.machines)


@settings(max_examples=15, deadline=None)
@given(steps)
def test_what_was_learned_is_the_same_after_a_reload(tmp_path_factory, steps):
    async def main():
        config = make_config(tmp_path_factory.mktemp("state"))
        async with opened(config) as tx:
            for number, (what, identity) in enumerate(steps):
                if what == "add":
                    try:
                        await tx.add_machine(mac=identity.mac, uuid=identity.uuid, serial=identity.serial)
                    except RefusedError:
                        continue
                else:
                    tx.seen(identity, START, "DISCOVER")
                if number % 5 == 0:
                    await tx.history(1)  # write now: later batches meet what is on the disk already
            before = (tx.machines(), [tx.timeline(machine.id) for machine in tx.machines()])
            assert tx.trouble == ""
        async with opened(config) as tx:
            assert (tx.machines(), [tx.timeline(machine.id) for machine in tx.machines()]) == before

    run(main())
