"""Alembic's migrations, run by `pxed.store.store.migrate` when a database is opened."""
