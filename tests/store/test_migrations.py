"""Migrations: from nothing, repeated, killed half-way, and against the tables that the code believes in."""

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from pxed.errors import OperatorError
from pxed.store import Store, tables
from pxed.store import store as store_module
from support.work import run


async def touch(path):
    await (await Store.open(path)).close()


def query(path, sql):
    with sqlite3.connect(path) as connection:
        rows = connection.execute(sql).fetchall()
    connection.close()
    return rows


def test_from_nothing(tmp_path):
    path = tmp_path / "deep" / "pxed.db"
    run(touch(path))
    names = {name for (name,) in query(path, "select name from sqlite_master where type = 'table'")}
    assert names == {*tables.metadata.tables, "alembic_version"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert query(path, "pragma journal_mode") == [("wal",)]


def test_tables_are_what_the_migrations_make(tmp_path):
    path = tmp_path / "pxed.db"
    run(touch(path))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()


def test_opening_again_changes_nothing(tmp_path):
    path = tmp_path / "pxed.db"
    run(touch(path))
    before = query(path, "select * from sqlite_master")
    run(touch(path))
    assert query(path, "select * from sqlite_master") == before


def test_migration_that_breaks_leaves_nothing(tmp_path, monkeypatch):
    """As after a kill in the middle: the whole migration is one transaction."""
    path = tmp_path / "pxed.db"

    def half(connection):
        migrate(connection)
        raise OSError(5, "pulled the plug")

    migrate = store_module.migrate
    monkeypatch.setattr(store_module, "migrate", half)
    with pytest.raises(OperatorError, match="pulled the plug"):
        run(touch(path))
    assert query(path, "select * from sqlite_master") == []
    monkeypatch.setattr(store_module, "migrate", migrate)
    run(touch(path))


def test_jobs_of_an_older_version_travel_as_before(tmp_path):
    """Revision 0001, which had no transport."""

    async def load():
        store = await Store.open(path)
        try:
            return await store.load()
        finally:
            await store.close()

    path = tmp_path / "pxed.db"
    run(touch(path))
    query(path, "alter table jobs drop column transport")
    query(path, "update alembic_version set version_num = '0001'")
    query(path, "insert into machines values (1, '', '', '', '', 'pc', 1, 0, 0)")
    columns = (
        "id, machine_id, kind, image, image_name, state, created, changed, generation, attempts, step, percent, rate"
    )
    values = "1, 1, 'restore', 'i', 'n', 'pending', 0, 0, 1, 0, '', 0, 0"
    rest = "reason, debug, expires, token, run, agent, offers, offered, claimed, firmware, past_runs"
    query(path, f"insert into jobs ({columns}, {rest}) values ({values}, '', 0, 0, 't', '', '', 0, 0, 0, '', '')")
    (record,) = run(load()).jobs
    assert (record.job.id, record.job.transport, record.token) == (1, "auto", "t")


def test_database_of_a_newer_version(tmp_path):
    path = tmp_path / "pxed.db"
    run(touch(path))
    query(path, "update alembic_version set version_num = '9999'")
    with pytest.raises(OperatorError, match="was written by a newer version of pxed"):
        run(touch(path))


def test_file_that_is_no_database(tmp_path):
    path = tmp_path / "pxed.db"
    path.write_bytes(b"this is not a database, however long one looks at it " * 100)
    with pytest.raises(OperatorError, match="it is not a pxed database"):
        run(touch(path))


def test_value_that_pxed_never_writes(tmp_path):
    async def load():
        store = await Store.open(path)
        try:
            await store.load()
        finally:
            await store.close()

    path = tmp_path / "pxed.db"
    run(touch(path))
    query(path, f"insert into jobs values (1, 1, {', '.join(['0'] * 23)})")
    with pytest.raises(OperatorError, match=r"it is damaged: restore a backup.*'0' is not a valid JobState"):
        run(load())


def test_directory_in_the_way(tmp_path):
    with pytest.raises(OperatorError, match="cannot be opened: Is a directory"):
        run(touch(tmp_path))


def test_one_server_at_a_time(tmp_path):
    async def main():
        first = await Store.open(tmp_path / "pxed.db")
        with pytest.raises(OperatorError, match="another pxed server runs with it"):
            await Store.open(tmp_path / "pxed.db")
        await first.close()
        await (await Store.open(tmp_path / "pxed.db")).close()

    run(main())
