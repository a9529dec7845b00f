"""The machines that are known, and which of them a given identity is.

Order of evidence: MAC, then SMBIOS UUID, then serial number (the last only where nothing contradicts it).

- The same MAC is the same machine, and so is the same good UUID; a machine collects MACs (several NICs, docks).
- Docks and USB adapters go from machine to machine. Where a MAC's machine has another good UUID than the one heard, the
  UUID decides: the MAC moves to the machine that has it. When no record has it, the serial number may still say that
  it is the same machine with a new UUID; else it is a contradiction. Restoring a disk on such evidence could wipe the
  wrong machine, so there is no work until an operator clears it up.
- A UUID that two records have is *shared*: vendors clone them. It is no evidence any more, for nobody.

All methods look things up in dicts: their cost does not grow with the number of machines. Methods that change
something return a `Change`; nothing happens before `apply`. No I/O, clock or randomness.
"""

from collections import OrderedDict
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from pxed.errors import NotFoundError, RefusedError
from pxed.types import Event, Identity, Machine
from pxed.work.identity import mac_text, plain_text, uuid_key, uuid_text
from pxed.work.jobs import JobRecord

__all__ = ["MAX_MACHINES", "MAX_MACS", "MAX_SIGHTINGS", "Change", "Found", "Machines"]

# Machines only seen on the wire that are kept; the one not seen for longest goes first. Anybody can invent MACs: this
# bounds what that costs to about 10 MB, and no site has this many machines that nobody told pxed about.
MAX_SIGHTINGS = 10_000

# Machines in all, when policy says to record every machine as known. Ten times the rollout that pxed is made for.
MAX_MACHINES = 100_000

# MACs of one machine. Servers have up to a dozen ports; the rest is docks, the oldest of which is forgotten.
MAX_MACS = 32

MAX_NAME = 64


class Change(Struct, frozen=True):
    """What an operation does to the records; the caller applies it to memory and to the database.

    Of machines and jobs it holds the complete new records. `durable` is False when nothing but `last_seen` changed.
    """

    machines: tuple[Machine, ...] = ()
    jobs: tuple[JobRecord, ...] = ()
    removed: tuple[int, ...] = ()  # ids of machines that are forgotten, with their jobs
    merged: tuple[tuple[int, int], ...] = ()  # (removed, kept): the first turned out to be the second
    events: tuple[Event, ...] = ()
    durable: bool = True

    def __bool__(self) -> bool:
        """True when there is anything in it."""
        return bool(self.machines or self.jobs or self.removed or self.events)

    def __add__(self, later: "Change") -> "Change":
        """Both, the later after this."""
        return Change(
            machines=self.machines + later.machines,
            jobs=self.jobs + later.jobs,
            removed=self.removed + later.removed,
            merged=self.merged + later.merged,
            events=self.events + later.events,
            durable=self.durable or later.durable,
        )


class Found(Struct, frozen=True):
    """Which machine an identity is. `conflict` is a sentence when the evidence contradicts itself."""

    machine: Machine | None
    by: str = ""  # "mac", "uuid", "serial"
    conflict: str = ""


def title(machine: Machine) -> str:
    """A machine as sentences name it."""
    return machine.name or (
        machine.macs[0] if machine.macs else machine.uuid or machine.serial or f"machine {machine.id}"
    )


class Machines:
    """All machines by id, with indices on everything that identifies one."""

    def __init__(self) -> None:
        self._machines: dict[int, Machine] = {}
        self._by_mac: dict[str, int] = {}
        self._by_uuid: dict[str, tuple[int, ...]] = {}  # uuid_key -> ids; more than one: shared
        self._by_serial: dict[str, tuple[int, ...]] = {}
        self._by_name: dict[str, int] = {}
        self._sightings: OrderedDict[int, None] = OrderedDict()  # ids not known, least recently seen first
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._machines)

    def __iter__(self) -> Iterator[Machine]:
        return iter(self._machines.values())

    def get(self, machine_id: int) -> Machine | None:
        """The machine with this id."""
        return self._machines.get(machine_id)

    def reserve(self, next_id: int) -> None:
        """Give no id below `next_id` to a new machine (ids of removed machines are not used again)."""
        self._next_id = max(self._next_id, next_id)

    @property
    def next_id(self) -> int:
        """The id that the next new machine gets."""
        return self._next_id

    # -- finding ------------------------------------------------------------------------------------------------

    def resolve(self, identity: Identity) -> Found:
        """Which machine this is. `identity` is clean."""
        by_mac = self._machines.get(self._by_mac.get(identity.mac, 0))
        by_uuid = self._only(self._by_uuid.get(uuid_key(identity.uuid), ())) if identity.uuid else None
        if by_mac is not None and not self._moved(by_mac, by_uuid, identity):
            return Found(by_mac, "mac", self._contradiction(by_mac, identity))
        if by_uuid is not None and not _serials_differ(by_uuid, identity):
            return Found(by_uuid, "uuid")
        by_serial = self._only(self._by_serial.get(identity.serial, ())) if identity.serial else None
        if by_serial is not None and not _uuids_differ(by_serial, identity) and not _makers_differ(by_serial, identity):
            return Found(by_serial, "serial")
        return Found(None)

    @staticmethod
    def _moved(by_mac: Machine, by_uuid: Machine | None, identity: Identity) -> bool:
        """True when the MAC's record is that of another machine: the adapter was moved, or the record was a guess."""
        if not identity.uuid or (by_uuid is not None and by_uuid.id == by_mac.id):
            return False
        if by_uuid is not None and not _serials_differ(by_uuid, identity):
            return bool(by_mac.uuid) or not by_mac.known
        # A UUID that no record has. What was only seen proves nothing; of what is known the serial number must agree.
        return _uuids_differ(by_mac, identity) and not by_mac.known and not _same_serial(by_mac, identity)

    @staticmethod
    def _contradiction(by_mac: Machine, identity: Identity) -> str:
        """A sentence when the MAC's machine is known by another UUID and nothing explains the one heard."""
        if not _uuids_differ(by_mac, identity) or _same_serial(by_mac, identity):
            return ""
        return (
            f"The MAC {identity.mac} belongs to {title(by_mac)} (machine {by_mac.id}) with the UUID {by_mac.uuid}, but "
            f"this machine has the UUID {identity.uuid}: the network adapter or dock was moved, or the mainboard "
            "changed. There is no work for it: add it by its UUID if it is another machine; if it is the same one, "
            "remove its record and add it again."
        )

    def find(self, key: str) -> Machine:
        """The machine with this MAC, UUID, name or id. Raises NotFoundError."""
        text = key.strip()
        for machine_id in self._candidates(text):
            if machine_id in self._machines:
                return self._machines[machine_id]
        shared = self._by_uuid.get(uuid_key(uuid_text(text)), ()) if uuid_text(text) else ()
        if len(shared) > 1:
            ids = ", ".join(str(one) for one in shared)
            raise NotFoundError(f"Several machines have the UUID {text} ({ids}); name one by MAC, name or id.")
        raise NotFoundError(f"There is no machine {text!r}: not as a MAC, SMBIOS UUID, name or id.")

    def _candidates(self, text: str) -> Iterator[int]:
        if mac := mac_text(text):
            yield self._by_mac.get(mac, 0)
        if uuid := uuid_text(text):
            only = self._only(self._by_uuid.get(uuid_key(uuid), ()))
            yield only.id if only else 0
        yield self._by_name.get(text.casefold(), 0)
        if text.isascii() and text.isdigit() and len(text) < 19:
            yield int(text)

    def _only(self, ids: tuple[int, ...]) -> Machine | None:
        return self._machines[ids[0]] if len(ids) == 1 else None

    # -- learning from the wire ---------------------------------------------------------------------------------

    def learn(self, identity: Identity, now: float, *, known: bool) -> tuple[Machine | None, Change]:
        """Record that this machine was heard: a new sighting, or new facts about one that is recorded.

        `known` is what a new record gets. Returns the machine as it will be (None when nothing identifies it, or there
        is no room) and the change. A contradicting identity teaches nothing.
        """
        found = self.resolve(identity)
        if found.conflict and found.machine is not None:
            return found.machine, Change(events=(self._note(found.machine, now, found.conflict),))
        if found.machine is None:
            return self._first_sight(identity, now, known)
        return self._merge(found.machine, identity, now)

    def _first_sight(self, identity: Identity, now: float, known: bool) -> tuple[Machine | None, Change]:
        if not identity.mac and (not identity.uuid or uuid_key(identity.uuid) in self._by_uuid):
            return None, Change()  # nothing to recognise it by the next time: its UUID, if any, is that of others
        removed: tuple[int, ...] = ()
        if len(self._sightings) >= MAX_SIGHTINGS or len(self._machines) >= MAX_MACHINES:
            if not self._sightings:
                return None, Change()
            removed = (next(iter(self._sightings)),)
        machine = replace(self._record_of(identity), known=known, first_seen=now, last_seen=now)
        events = [self._note(machine, now, "Seen for the first time.")]
        if shared := self._shared_with(machine):
            events.append(self._note(machine, now, shared))
        new = Change(machines=(machine,), removed=removed, events=tuple(events))
        return machine, self._taken_from(machine, now, removed) + new

    def _record_of(self, identity: Identity) -> Machine:
        """A record of its own for a machine that there is none of."""
        return Machine(
            id=self._next_id,
            macs=(identity.mac,) if identity.mac else (),
            uuid=identity.uuid,
            serial=identity.serial,
            manufacturer=identity.manufacturer,
            product=identity.product,
        )

    def _merge(self, old: Machine, identity: Identity, now: float) -> tuple[Machine, Change]:
        """New facts about a recorded machine. What it says now replaces what it said before."""
        notes: list[str] = []
        removed: tuple[int, ...] = ()
        macs = old.macs
        other = self._only(self._by_uuid.get(uuid_key(identity.uuid), ())) if identity.uuid else None
        if other is not None and other.id != old.id and not other.known and not _serials_differ(other, identity):
            # The sighting was this machine through another of its NICs, before we knew that they belong together.
            macs += other.macs
            removed = (other.id,)
            notes.append(f"Machine {other.id}, seen earlier as {title(other)}, has the same UUID: it is this machine.")
        if identity.mac and identity.mac not in macs:
            macs = (*macs, identity.mac)
            notes.append(f"It has another network address: {identity.mac}.")
        if len(macs) > MAX_MACS:  # the first is the one that an operator gave, or its own
            macs = (macs[0], *macs[1 - MAX_MACS :])
        if old.uuid and identity.uuid and uuid_key(old.uuid) != uuid_key(identity.uuid):
            notes.append(f"Its UUID changed from {old.uuid} to {identity.uuid}; it is recognised by its MAC.")
        if old.serial and identity.serial and old.serial != identity.serial:
            notes.append(f"Its serial number changed from {old.serial} to {identity.serial}.")
        same_uuid = old.uuid and identity.uuid and uuid_key(old.uuid) == uuid_key(identity.uuid)
        new = replace(
            old,
            macs=macs,
            uuid=old.uuid if same_uuid or not identity.uuid else identity.uuid,
            serial=identity.serial or old.serial,
            manufacturer=identity.manufacturer or old.manufacturer,
            product=identity.product or old.product,
            first_seen=old.first_seen or now,
            last_seen=max(now, old.last_seen),
        )
        if new.uuid != old.uuid and not removed and (shared := self._shared_with(new)):
            notes.append(shared)
        durable = replace(new, last_seen=old.last_seen) != old or bool(notes)
        change = Change(
            machines=(new,),
            removed=removed,
            merged=tuple((one, new.id) for one in removed),
            events=tuple(self._note(new, now, text) for text in notes),
            durable=durable,
        )
        return new, self._taken_from(new, now, removed) + change if new.macs != old.macs else change

    def _taken_from(self, machine: Machine, now: float, removed: tuple[int, ...]) -> Change:
        """What it means for other records that `machine` has its MACs now; one that is left with nothing goes."""
        change = Change(durable=False)
        for mac in machine.macs:
            owner = self._machines.get(self._by_mac.get(mac, 0))
            if owner is None or owner.id == machine.id or owner.id in removed:
                continue
            left = replace(owner, macs=tuple(one for one in owner.macs if one != mac))
            if not (left.macs or left.uuid or left.serial or left.known):
                change += Change(removed=(owner.id,), merged=((owner.id, machine.id),))
                continue
            note = f"Its network address {mac} is at {title(machine)} (machine {machine.id}) now."
            change += Change(machines=(left,), events=(self._note(left, now, note),))
        return change

    def _shared_with(self, machine: Machine) -> str:
        ids = (
            [one for one in self._by_uuid.get(uuid_key(machine.uuid), ()) if one != machine.id] if machine.uuid else []
        )
        if not ids:
            return ""
        return (
            f"Its UUID {machine.uuid} is also that of machine {ids[0]}: the maker used it more than once, "
            "so machines are no longer recognised by it."
        )

    @staticmethod
    def _note(machine: Machine, now: float, text: str) -> Event:
        mac = machine.macs[-1] if machine.macs else ""
        return Event(time=now, mac=mac, kind="seen", text=text, machine_id=machine.id)

    # -- what an operator does ----------------------------------------------------------------------------------

    def add(self, identity: Identity, name: str, now: float) -> tuple[Machine, Change]:
        """A machine that an operator announces: new, or one that was only seen and is known from now on.

        Raises RefusedError when it is known already, its name is taken, or nothing identifies it.
        """
        name = self._free_name(name)
        if not (identity.mac or identity.uuid or identity.serial):
            raise RefusedError(
                "Nothing identifies this machine: give a MAC, an SMBIOS UUID or a serial number "
                "(placeholders that many boards share do not count)."
            )
        found = self.resolve(identity)
        if found.machine is None or found.conflict:  # an operator's word settles a contradiction
            machine = replace(self._record_of(identity), name=name)
            added = Change(machines=(machine,), events=(self._note(machine, now, "Added by an operator."),))
            return machine, self._taken_from(machine, now, ()) + added
        if found.machine.known:
            raise RefusedError(
                f"This is machine {found.machine.id} ({title(found.machine)}) already, by its {found.by}."
            )
        merged, change = self._merge(found.machine, identity, now)
        machine = replace(merged, known=True, name=name, last_seen=found.machine.last_seen)
        note = self._note(machine, now, "Added by an operator; it had been seen before.")
        others = tuple(one for one in change.machines if one.id != machine.id)
        return machine, replace(change, machines=(*others, machine), events=(*change.events, note), durable=True)

    def _free_name(self, name: str) -> str:
        if len(name.strip()) > MAX_NAME:
            raise RefusedError(f"A machine's name has at most {MAX_NAME} characters; this one has {len(name.strip())}.")
        name = plain_text(name, MAX_NAME)
        if not name:
            return ""
        if mac_text(name) or uuid_text(name) or name.isdigit():
            raise RefusedError(f"{name!r} cannot be a machine's name: it would be read as a MAC, a UUID or an id.")
        if name.casefold() in self._by_name:
            raise RefusedError(f"Machine {self._by_name[name.casefold()]} has the name {name!r} already.")
        return name

    # -- applying -----------------------------------------------------------------------------------------------

    def apply(self, change: Change) -> None:
        """Take over the machines of a change."""
        for machine_id in change.removed:
            self._drop(machine_id)
        for machine in change.machines:
            self._put(machine)

    def _put(self, machine: Machine) -> None:
        old = self._machines.get(machine.id)
        if old is None or replace(old, last_seen=machine.last_seen) != machine:
            self._unindex(old)
            for mac in machine.macs:
                self._by_mac[mac] = machine.id
            if machine.uuid:
                _index(self._by_uuid, uuid_key(machine.uuid), machine.id)
            if machine.serial:
                _index(self._by_serial, machine.serial, machine.id)
            if machine.name:
                self._by_name[machine.name.casefold()] = machine.id
        self._machines[machine.id] = machine
        self._next_id = max(self._next_id, machine.id + 1)
        if machine.known:
            self._sightings.pop(machine.id, None)
        else:
            self._sightings[machine.id] = None
            self._sightings.move_to_end(machine.id)

    def _drop(self, machine_id: int) -> None:
        self._unindex(self._machines.pop(machine_id, None))
        self._sightings.pop(machine_id, None)

    def _unindex(self, machine: Machine | None) -> None:
        if machine is None:
            return
        for mac in machine.macs:
            if self._by_mac.get(mac) == machine.id:
                del self._by_mac[mac]
        if machine.uuid:
            _unindex(self._by_uuid, uuid_key(machine.uuid), machine.id)
        if machine.serial:
            _unindex(self._by_serial, machine.serial, machine.id)
        if machine.name and self._by_name.get(machine.name.casefold()) == machine.id:
            del self._by_name[machine.name.casefold()]


def _index(index: dict[str, tuple[int, ...]], key: str, machine_id: int) -> None:
    ids = index.get(key, ())
    if machine_id not in ids:
        index[key] = (*ids, machine_id)


def _unindex(index: dict[str, tuple[int, ...]], key: str, machine_id: int) -> None:
    left = tuple(one for one in index.get(key, ()) if one != machine_id)
    if left:
        index[key] = left
    else:
        index.pop(key, None)


def _uuids_differ(machine: Machine, identity: Identity) -> bool:
    return bool(machine.uuid and identity.uuid) and uuid_key(machine.uuid) != uuid_key(identity.uuid)


def _same_serial(machine: Machine, identity: Identity) -> bool:
    return bool(machine.serial) and machine.serial == identity.serial


def _serials_differ(machine: Machine, identity: Identity) -> bool:
    return bool(machine.serial and identity.serial and machine.serial != identity.serial)


def _makers_differ(machine: Machine, identity: Identity) -> bool:
    return bool(
        machine.manufacturer and identity.manufacturer and machine.manufacturer != identity.manufacturer
    ) or bool(machine.product and identity.product and machine.product != identity.product)
