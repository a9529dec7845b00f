"""State on disk: machines, jobs and timelines in SQLite, by SQLAlchemy Core, with Alembic migrations run at open.

The server keeps everything that it answers from in memory; this package loads it at start and makes changes durable.
"""

from pxed.store.records import Batch, Snapshot
from pxed.store.store import Store
from pxed.store.writer import Writer

__all__ = ["Batch", "Snapshot", "Store", "Writer"]
