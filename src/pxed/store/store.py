"""The database: open (with migrations), load, save, close.

SQLite in WAL mode with synchronous=FULL: what `save` returned from is on the disk, also after a power cut. One server
has a database at a time (a lock on the file). Every failure of the disk or the file is an OperatorError whose sentence
says what to do; nothing else leaves here but for bugs.
"""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import Connection, Table, delete, event, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from pxed.errors import InternalError, OperatorError
from pxed.store import records, tables
from pxed.store.records import Batch, Snapshot
from pxed.types import Machine
from pxed.work.jobs import ENDED
from pxed.work.timeline import KEPT, Line

__all__ = ["Store", "migrate"]

MIGRATIONS = Path(__file__).parent / "migrations"

# Lines loaded into memory in all, the newest: about 60 MB. Older ones are read from the database when asked for.
MAX_LINES_LOADED = 200_000

# Timeline lines are kept this long; they would otherwise grow for ever, trimmed by hand or not at all.
LINE_AGE = 400 * 86400.0

# What SQLite says, and what it means for the person who runs the server.
_MEANINGS = (
    ("readonly database", "it is read-only: check the mount and the file's permissions"),
    ("disk is full", "the disk is full (or the database's size limit is reached): make room"),
    ("disk i/o error", "the disk gives I/O errors: look into the kernel's log"),
    ("locked", "another program holds it: no other program may write it while the server runs"),
    ("unable to open", "it cannot be opened: check that its directory exists and may be written"),
    ("not a database", "it is not a pxed database: another file has its name, or it is damaged; restore a backup"),
    ("malformed", "it is damaged: restore a backup, or move it away to start anew"),
)


def _sentence(path: Path, error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error)
    for sign, meaning in _MEANINGS:
        if sign in text.lower():
            return f"The database {path} cannot be used: {meaning} ({text})."
    return f"The database {path} cannot be used: {text}."


def migrate(connection: Connection) -> None:
    """Bring the schema to the newest revision, in the connection's transaction."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


class Store:
    """One open database. Made by `Store.open`."""

    def __init__(self, path: Path, engine: AsyncEngine, lock: int) -> None:
        self.path = path
        self._engine = engine
        self._lock = lock

    @classmethod
    async def open(cls, path: str | Path) -> "Store":
        """Open the database, create or upgrade it. Raises OperatorError when that is impossible."""
        path = Path(path)
        lock = await asyncio.to_thread(_take, path)
        engine = _engine(path)
        store = cls(path, engine, lock)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(migrate)
        except CommandError as error:
            await store.close()
            raise OperatorError(
                f"The database {path} was written by a newer version of pxed; run that one, or restore a backup "
                f"({error})."
            ) from error
        except (DBAPIError, OSError) as error:
            await store.close()
            raise OperatorError(_sentence(path, error)) from error
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close the database and let go of it."""
        await self._engine.dispose()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def load(self) -> Snapshot:
        """Everything that the server needs in memory. Raises OperatorError."""
        try:
            async with self._engine.connect() as connection:
                return await _load(connection)
        except DBAPIError as error:
            raise OperatorError(_sentence(self.path, error)) from error
        except (ValueError, TypeError) as error:  # a value that pxed never writes
            damage = ValueError(f"database disk image is malformed: {error}")
            raise OperatorError(_sentence(self.path, damage)) from error

    async def save(self, batch: Batch) -> None:
        """Make a batch durable: all of it or, when this raises OperatorError, nothing."""
        try:
            async with self._engine.begin() as connection:
                await _save(connection, batch)
        except IntegrityError as error:
            raise InternalError(f"The database refused a batch as contradictory: {error.orig}") from error
        except DBAPIError as error:
            raise OperatorError(_sentence(self.path, error)) from error
        except (SQLAlchemyError, ValueError, TypeError, OverflowError) as error:
            raise InternalError(f"A batch could not be written: {error}") from error

    async def history(self, machine_id: int, limit: int = 10_000) -> list[Line]:
        """A machine's stored timeline, oldest first, at most the newest `limit` lines. Raises OperatorError."""
        query = (
            select(tables.events)
            .where(tables.events.c.machine_id == machine_id)
            .order_by(tables.events.c.id.desc())
            .limit(limit)
        )
        try:
            async with self._engine.connect() as connection:
                rows = await _rows(connection, query)
        except DBAPIError as error:
            raise OperatorError(_sentence(self.path, error)) from error
        return [records.line_of(row) for row in reversed(rows)]

    async def prune(self, now: float) -> None:
        """Forget timeline lines older than LINE_AGE. Raises OperatorError."""
        try:
            async with self._engine.begin() as connection:
                await connection.execute(delete(tables.events).where(tables.events.c.last < now - LINE_AGE))
        except DBAPIError as error:
            raise OperatorError(_sentence(self.path, error)) from error


def _take(path: Path) -> int:
    """Create the file when it is missing, for its owner's eyes only (tokens are in it), and lock it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(f"The database {path} cannot be opened: {error.strerror}.") from error
    try:
        # flock, not fcntl's locks, which SQLite uses itself on the same file. This descriptor stays open as long as
        # SQLite's: closing any descriptor of a file would drop its fcntl locks.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise OperatorError(f"The database {path} is in use: another pxed server runs with it.") from error
    return fd


def _engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        # The driver shall not begin transactions by its own rules (it would commit before DDL, so that a migration
        # that is killed half-way would leave half a schema): SQLAlchemy begins them, below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


async def _rows(connection: AsyncConnection, query: Any) -> list[records.Row]:
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def _load(connection: AsyncConnection) -> Snapshot:
    macs: dict[int, list[str]] = {}
    order = (tables.machine_macs.c.machine_id, tables.machine_macs.c.position)
    for row in await _rows(connection, select(tables.machine_macs).order_by(*order)):
        macs.setdefault(row["machine_id"], []).append(row["mac"])
    machines: list[Machine] = [
        records.machine_of(row, tuple(macs.get(row["id"], ())))
        for row in await _rows(connection, select(tables.machines).order_by(tables.machines.c.last_seen))
    ]
    jobs = [records.job_of(row) for row in await _rows(connection, select(tables.jobs).order_by(tables.jobs.c.id))]
    rank = func.row_number().over(partition_by=tables.events.c.machine_id, order_by=tables.events.c.id.desc())
    ranked = select(tables.events, rank.label("rank")).where(tables.events.c.machine_id.is_not(None)).subquery()
    columns = [ranked.c[column.name] for column in tables.events.c]
    newest = select(*columns).where(ranked.c.rank <= KEPT).order_by(ranked.c.id.desc()).limit(MAX_LINES_LOADED)
    lines = [records.line_of(row) for row in reversed(await _rows(connection, newest))]
    counters = {row["name"]: row["value"] for row in await _rows(connection, select(tables.counters))}
    last = (await connection.execute(select(func.max(tables.events.c.id)))).scalar() or 0
    counters["line"] = max(counters.get("line", 1), last + 1)
    return Snapshot(machines=machines, jobs=jobs, lines=lines, counters=counters)


async def _save(connection: AsyncConnection, batch: Batch) -> None:
    if batch.removed:
        ids = sorted(batch.removed)
        await _delete(connection, tables.machines, "id", ids)  # MACs and jobs go with it
        await _delete(connection, tables.events, "machine_id", ids)
    if batch.machines:
        machines = list(batch.machines.values())
        await _upsert(connection, tables.machines, [records.machine_row(machine) for machine in machines])
        await _delete(connection, tables.machine_macs, "machine_id", list(batch.machines))
        await _upsert(connection, tables.machine_macs, [row for one in machines for row in records.mac_rows(one)])
    if batch.jobs:
        # What ended first: a machine has one active job at any moment, also in the middle of this transaction.
        in_order = sorted(
            batch.jobs.values(), key=lambda record: (record.state not in ENDED, record.state == "offered")
        )
        await _upsert(connection, tables.jobs, [records.job_row(record) for record in in_order])
    if batch.lines:
        await _upsert(connection, tables.events, [records.line_row(line) for line in batch.lines.values()])
    if batch.counters:
        await _upsert(connection, tables.counters, [{"name": k, "value": v} for k, v in batch.counters.items()])


async def _delete(connection: AsyncConnection, table: Table, column: str, values: list[int]) -> None:
    for start in range(0, len(values), 500):  # SQLite's limit of variables in a statement
        part = values[start : start + 500]
        await connection.execute(delete(table).where(table.c[column].in_(part)))


async def _upsert(connection: AsyncConnection, table: Table, rows: list[records.Row]) -> None:
    if not rows:
        return
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    rest = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest), rows)
