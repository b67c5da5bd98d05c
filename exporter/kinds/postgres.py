"""``{postgres: postgresql://USER@HOST/DATABASE}``: ask a PostgreSQL server."""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from exporter.fields import Duration
from exporter.kinds.sql import Role, SqlProbe, check_url, need


class PostgresProbe(SqlProbe):
    """Log in to a PostgreSQL server, look at its role and its connections, and send a query."""

    kind: ClassVar[str] = "postgres"
    postgres: Annotated[
        str, AfterValidator(lambda value: check_url(value, ("postgresql", "postgres"))), Field(repr=False)
    ]
    role: Role | None = None
    max_lag: Duration | None = None  # of a replica behind its primary

    @model_validator(mode="after")
    def _library_is_there(self) -> Self:
        need("asyncpg", "postgres")
        return self

    def url(self) -> str:
        """Return the address as it is written."""
        return self.postgres

    def default_port(self) -> int:
        """Return the port of an address without one."""
        return 5432
