"""Machines, jobs, timeline events, and the counters that ids come from."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "machines",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("serial", sa.String(64), nullable=False),
        sa.Column("manufacturer", sa.String(64), nullable=False),
        sa.Column("product", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("known", sa.Boolean, nullable=False),
        sa.Column("first_seen", sa.Double, nullable=False),
        sa.Column("last_seen", sa.Double, nullable=False),
    )
    op.create_table(
        "machine_macs",
        sa.Column("mac", sa.String(17), primary_key=True),
        sa.Column("machine_id", sa.Integer, sa.ForeignKey("machines.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
    )
    op.create_index("machine_macs_machine", "machine_macs", ["machine_id"])
    _create_jobs()
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("last", sa.Double, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("mac", sa.String(17), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("machine_id", sa.Integer, nullable=True),
        sa.Column("job_id", sa.Integer, nullable=True),
    )
    op.create_index("events_machine", "events", ["machine_id", "id"])
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("machine_id", sa.Integer, sa.ForeignKey("machines.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("image", sa.String(64), nullable=False),
        sa.Column("image_name", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("changed", sa.Double, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("step", sa.String(32), nullable=False),
        sa.Column("percent", sa.Double, nullable=False),
        sa.Column("rate", sa.Double, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("debug", sa.Boolean, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("offers", sa.Integer, nullable=False),
        sa.Column("offered", sa.Double, nullable=False),
        sa.Column("claimed", sa.Double, nullable=False),
        sa.Column("firmware", sa.String(8), nullable=False),
        sa.Column("past_runs", sa.Text, nullable=False),
    )
    op.create_index("jobs_machine", "jobs", ["machine_id"])
    active = sa.text("state IN ('offered', 'running')")
    op.create_index("jobs_one_active", "jobs", ["machine_id"], unique=True, sqlite_where=active)
    op.create_index("jobs_token", "jobs", ["token"], unique=True)
