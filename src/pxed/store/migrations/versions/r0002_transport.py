"""Jobs say how their image travels."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Jobs that are there were made when "auto" was all there was."""
    op.add_column("jobs", sa.Column("transport", sa.String(8), nullable=False, server_default="auto"))
