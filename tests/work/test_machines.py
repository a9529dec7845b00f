"""Which machine an identity is: one machine with many MACs, cloned UUIDs, moved docks, placeholders."""

import pytest

from pxed.errors import NotFoundError, RefusedError
from pxed.types import Identity
from pxed.work import machines
from pxed.work.identity import normalise
from support.work import START, Driver, identity_of, mac_of, uuid_of


def texts(driver):
    return [event.text for event in driver.events]


def count(driver):
    return len(driver.registry.machines)


def test_first_sight_is_recorded_and_unknown():
    driver = Driver()
    machine = driver.seen(identity_of(1, serial="7XK2M12", manufacturer="Dell Inc.", product="OptiPlex"))
    assert not machine.known and machine.macs == (mac_of(1),) and machine.first_seen == START
    assert (machine.uuid, machine.serial, machine.product) == (uuid_of(1), "7XK2M12", "OptiPlex")
    assert texts(driver) == ["Seen for the first time."]
    assert driver.seen(identity_of(1)) == machine and count(driver) == 1


def test_same_uuid_with_another_mac_is_the_same_machine():
    driver = Driver()
    driver.seen(identity_of(1))
    machine = driver.seen(normalise(mac_of(2), uuid_of(1)))
    assert machine.macs == (mac_of(1), mac_of(2)) and count(driver) == 1
    assert texts(driver)[-1] == f"It has another network address: {mac_of(2)}."
    assert driver.registry.machines.resolve(Identity(mac=mac_of(2))).machine.id == machine.id


def test_either_byte_order_of_the_uuid_is_the_same_machine():
    driver = Driver()
    one = driver.seen(normalise(mac_of(1), "9c5b94b1-35ad-49bb-b118-8e8fc24abf80"))
    other = driver.seen(normalise(mac_of(2), "b1945b9c-ad35-bb49-b118-8e8fc24abf80"))
    assert one.id == other.id and other.uuid == one.uuid


def test_machines_with_a_bogus_uuid_are_different():
    driver = Driver()
    for number in (1, 2, 3):
        driver.seen(normalise(mac_of(number), "03000200-0400-0500-0006-000700080009", serial="Default string"))
    assert count(driver) == 3


def test_facts_come_later():
    driver = Driver()
    driver.seen(Identity(mac=mac_of(1)))
    machine = driver.seen(identity_of(1, serial="7XK2M12"))
    assert machine.uuid == uuid_of(1) and machine.serial == "7XK2M12" and count(driver) == 1
    assert driver.seen(Identity(mac=mac_of(1))).uuid == uuid_of(1)


def test_cloned_uuid_is_no_evidence_any_more():
    """Two machines announced by MAC turn out to have one UUID: the MACs decide, and both are told."""
    driver = Driver()
    one = driver.registry.machines
    a, change = one.add(Identity(mac=mac_of(1)), "a", START)
    driver.take(change)
    b, change = one.add(Identity(mac=mac_of(2)), "b", START)
    driver.take(change)
    assert driver.seen(normalise(mac_of(1), uuid_of(9))).id == a.id
    assert driver.seen(normalise(mac_of(2), uuid_of(9))).id == b.id
    assert "the maker used it more than once" in texts(driver)[-1]
    assert driver.seen(normalise(mac_of(1), uuid_of(9))).id == a.id
    assert driver.registry.machines.resolve(normalise(mac_of(3), uuid_of(9))).machine is None
    with pytest.raises(NotFoundError, match="Several machines have the UUID"):
        driver.registry.machines.find(uuid_of(9))


def test_serial_tells_cloned_uuids_apart():
    driver = Driver()
    driver.seen(normalise(mac_of(1), uuid_of(9), serial="AAA111B"))
    driver.seen(normalise(mac_of(2), uuid_of(9), serial="BBB222C"))
    assert count(driver) == 2 and "more than once" in texts(driver)[-1]


def test_dock_goes_from_machine_to_machine():
    """The dock's MAC is on record for A; B comes through it with B's own UUID: it is B, and the MAC moves with it."""
    driver = Driver()
    a, b = driver.machine(1), driver.machine(2)
    through_dock = normalise(mac_of(1), uuid_of(2))
    found = driver.registry.machines.resolve(through_dock)
    assert (found.machine.id, found.by, found.conflict) == (b.id, "uuid", "")
    assert driver.seen(through_dock).macs == (mac_of(2), mac_of(1))
    assert driver.registry.machines.get(a.id).macs == ()
    assert {event.machine_id: event.text for event in driver.events[-2:]} == {
        a.id: f"Its network address {mac_of(1)} is at {mac_of(2)} (machine {b.id}) now.",
        b.id: f"It has another network address: {mac_of(1)}.",
    }
    assert driver.seen(identity_of(1)).id == a.id  # and back again
    assert driver.registry.machines.get(b.id).macs == (mac_of(2),)


def test_dock_at_a_machine_that_nobody_knows_is_a_contradiction():
    driver = Driver()
    a = driver.machine(1)
    through_dock = normalise(mac_of(1), uuid_of(7))
    found = driver.registry.machines.resolve(through_dock)
    assert found.machine.id == a.id and f"this machine has the UUID {uuid_of(7)}" in found.conflict
    assert driver.seen(through_dock) == a  # nothing was learned from it
    assert driver.events[-1].text == found.conflict and driver.events[-1].machine_id == a.id
    new, change = driver.registry.machines.add(through_dock, "", START)  # the operator says that it is another one
    driver.take(change)
    assert new.id != a.id and driver.registry.machines.resolve(through_dock) == machines.Found(new, "mac")
    assert driver.registry.machines.resolve(Identity(uuid=uuid_of(1))).machine.id == a.id


def test_dock_of_a_machine_only_seen_is_no_contradiction():
    driver = Driver()
    a = driver.seen(identity_of(1))
    b = driver.seen(normalise(mac_of(1), uuid_of(7)))
    assert a.id != b.id and driver.registry.machines.get(a.id).macs == () and b.macs == (mac_of(1),)
    assert driver.seen(identity_of(1)).id == a.id and count(driver) == 2


def test_mac_seen_without_a_uuid_was_a_known_machine():
    driver = Driver()
    sighting = driver.seen(Identity(mac=mac_of(5)))
    known = driver.machine(1)
    learned, change = driver.registry.machines.learn(normalise(mac_of(5), uuid_of(1)), START, known=False)
    assert learned.id == known.id and change.merged == ((sighting.id, known.id),)
    driver.take(change)
    assert count(driver) == 1 and learned.macs == (mac_of(1), mac_of(5))


def test_changed_uuid_of_the_same_serial_is_followed_and_noted():
    driver = Driver()
    driver.machine(1, serial="7XK2M12")
    machine = driver.seen(normalise(mac_of(1), uuid_of(7), serial="7XK2M12"))
    assert machine.id == 1 and machine.uuid == uuid_of(7)
    assert texts(driver)[-1].startswith(f"Its UUID changed from {uuid_of(1)} to {uuid_of(7)}")
    assert driver.registry.machines.resolve(Identity(uuid=uuid_of(1))).machine is None


def test_sighting_through_another_nic_is_absorbed():
    """The firmware tries its NICs in turn: the first was seen before the operator's MAC, the second, came up."""
    driver = Driver()
    sighting = driver.seen(identity_of(1))
    announced, change = driver.registry.machines.add(Identity(mac=mac_of(2)), "lab", START)
    driver.take(change)
    learned, change = driver.registry.machines.learn(normalise(mac_of(2), uuid_of(1)), START, known=False)
    assert change.removed == (sighting.id,) and change.merged == ((sighting.id, announced.id),)
    driver.take(change)
    assert learned.id == announced.id and set(learned.macs) == {mac_of(1), mac_of(2)} and count(driver) == 1
    assert driver.registry.machines.resolve(Identity(mac=mac_of(1))).machine.id == announced.id


def test_serial_alone_identifies_where_nothing_contradicts():
    driver = Driver()
    machine, change = driver.registry.machines.add(normalise(serial="7XK2M12", manufacturer="Dell"), "", START)
    driver.take(change)
    resolve = driver.registry.machines.resolve
    assert resolve(normalise(mac_of(1), uuid_of(1), "7XK2M12", "Dell")).by == "serial"
    assert resolve(normalise(mac_of(1), uuid_of(1), "7XK2M12", "Lenovo")).machine is None
    learned = driver.seen(normalise(mac_of(1), uuid_of(1), "7XK2M12", "Dell"))
    assert learned.id == machine.id and learned.macs == (mac_of(1),) and learned.uuid == uuid_of(1)
    assert resolve(normalise(mac_of(2), uuid_of(2), "7XK2M12", "Dell")).machine is None


def test_operator_makes_a_sighting_known():
    driver = Driver()
    seen = driver.seen(identity_of(1))
    machine, change = driver.registry.machines.add(Identity(mac=mac_of(1)), "lab1", START + 5)
    driver.take(change)
    assert machine.id == seen.id and machine.known and machine.name == "lab1" and machine.uuid == uuid_of(1)
    with pytest.raises(RefusedError, match="already, by its mac"):
        driver.registry.machines.add(Identity(mac=mac_of(1)), "", START)
    with pytest.raises(RefusedError, match="already, by its uuid"):
        driver.registry.machines.add(Identity(mac=mac_of(5), uuid=uuid_of(1)), "", START)


def test_a_name_that_is_too_long_is_refused_and_not_cut():
    driver = Driver()
    with pytest.raises(RefusedError, match="at most 64 characters; this one has 200"):
        driver.registry.machines.add(Identity(mac=mac_of(1)), "x" * 200, START)
    machine, _ = driver.registry.machines.add(Identity(mac=mac_of(1)), "x" * 64, START)
    assert machine.name == "x" * 64


@pytest.mark.parametrize("name", [mac_of(1), uuid_of(1), "17"])
def test_names_that_would_be_read_otherwise(name):
    with pytest.raises(RefusedError, match="cannot be a machine's name"):
        Driver().registry.machines.add(identity_of(1), name, START)


def test_names_are_unique_whatever_the_case():
    driver = Driver()
    _, change = driver.registry.machines.add(identity_of(1), "Lab", START)
    driver.take(change)
    with pytest.raises(RefusedError, match="has the name 'lab' already"):
        driver.registry.machines.add(identity_of(2), "lab", START)
    assert driver.registry.machines.find("LAB").id == 1


def test_nothing_identifies_it():
    with pytest.raises(RefusedError, match="Nothing identifies this machine"):
        Driver().registry.machines.add(normalise(uuid="00000000-0000-0000-0000-000000000000"), "x", START)
    driver = Driver()
    assert driver.seen(Identity(serial="7XK2M12")) is None and count(driver) == 0


def test_find_by_everything():
    driver = Driver()
    machine = driver.machine(1)
    for key in (mac_of(1), mac_of(1).upper().replace(":", "-"), uuid_of(1), uuid_of(1).upper(), "1"):
        assert driver.registry.machines.find(key) == machine
    for key in ("2", "nobody", mac_of(2), uuid_of(2), "", "9" * 30, "²"):
        with pytest.raises(NotFoundError, match="There is no machine"):
            driver.registry.machines.find(key)


def test_sightings_are_bounded_and_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(machines, "MAX_SIGHTINGS", 3)
    driver = Driver()
    known = driver.machine(100)
    for number in (1, 2, 3):
        driver.seen(identity_of(number))
    driver.seen(identity_of(1))  # heard again: not the oldest any more
    driver.seen(identity_of(4))
    assert {machine.macs[0] for machine in driver.registry.machines} == {mac_of(n) for n in (100, 1, 3, 4)}
    assert driver.registry.machines.get(known.id)


def test_machines_in_all_are_bounded(monkeypatch):
    monkeypatch.setattr(machines, "MAX_MACHINES", 2)
    driver = Driver()
    assert driver.seen(identity_of(1), known=True).known and driver.seen(identity_of(2), known=True)
    assert driver.seen(identity_of(3), known=True) is None and count(driver) == 2


def test_macs_of_one_machine_are_bounded():
    driver = Driver()
    for number in range(machines.MAX_MACS + 5):
        machine = driver.seen(normalise(mac_of(number), uuid_of(1)))
    assert len(machine.macs) == machines.MAX_MACS and machine.macs[-1] == mac_of(machines.MAX_MACS + 4)
    assert machine.macs[0] == mac_of(0)  # the first stays: it is the one that an operator gave, or its own
    assert driver.registry.machines.resolve(Identity(mac=mac_of(1))).machine is None


def test_only_last_seen_changed_is_not_durable():
    driver = Driver()
    driver.seen(identity_of(1))
    driver.now += 5
    machine, change = driver.registry.machines.learn(identity_of(1), driver.now, known=False)
    assert not change.durable and not change.events and machine.last_seen == driver.now


def test_ids_of_removed_machines_are_not_used_again():
    driver = Driver()
    machine = driver.machine(1)
    driver.take(driver.registry.remove_machine(machine))
    assert count(driver) == 0 and driver.machine(1).id == machine.id + 1


def test_uuid_alone_that_several_have_makes_no_new_record_each_time():
    driver = Driver()
    driver.seen(normalise(mac_of(1), uuid_of(9), serial="AAA111B"))
    driver.seen(normalise(mac_of(2), uuid_of(9), serial="BBB222C"))
    for _ in range(3):
        assert driver.seen(Identity(uuid=uuid_of(9))) is None
    assert count(driver) == 2
