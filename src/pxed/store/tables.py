"""The tables, as the newest migration leaves them (a test compares the two).

Ids are given by the server, not by the database, so that an answer from memory can name a machine whose row is not
written yet. `counters` keeps the next ids: those of removed records are not used again.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

__all__ = ["counters", "events", "jobs", "machine_macs", "machines", "metadata"]

metadata = MetaData()

machines = Table(
    "machines",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("uuid", String(36), nullable=False),
    Column("serial", String(64), nullable=False),
    Column("manufacturer", String(64), nullable=False),
    Column("product", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("known", Boolean, nullable=False),
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
)

machine_macs = Table(
    "machine_macs",
    metadata,
    Column("mac", String(17), primary_key=True),
    Column("machine_id", Integer, ForeignKey("machines.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Index("machine_macs_machine", "machine_id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("machine_id", Integer, ForeignKey("machines.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("image", String(64), nullable=False),
    Column("image_name", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", Double, nullable=False),
    Column("changed", Double, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("step", String(32), nullable=False),
    Column("percent", Double, nullable=False),
    Column("rate", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("debug", Boolean, nullable=False),
    Column("expires", Double, nullable=False),
    Column("token", String(64), nullable=False),
    Column("run", String(64), nullable=False),
    Column("agent", Text, nullable=False),
    Column("offers", Integer, nullable=False),
    Column("offered", Double, nullable=False),
    Column("claimed", Double, nullable=False),
    Column("firmware", String(8), nullable=False),
    Column("past_runs", Text, nullable=False),  # separated by blanks
    Column("transport", String(8), nullable=False, server_default="auto"),
    Index("jobs_machine", "machine_id"),
    # The registry sees to it that a machine has one active job; this is the belt to those braces.
    Index("jobs_one_active", "machine_id", unique=True, sqlite_where=text("state IN ('offered', 'running')")),
    Index("jobs_token", "token", unique=True),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("last", Double, nullable=False),
    Column("count", Integer, nullable=False),
    Column("mac", String(17), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("machine_id", Integer, nullable=True),
    Column("job_id", Integer, nullable=True),
    Index("events_machine", "machine_id", "id"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
