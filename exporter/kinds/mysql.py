"""``{mysql: mysql://USER@HOST/DATABASE}``: ask a MySQL or MariaDB server."""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from exporter.kinds.sql import SqlProbe, check_url, need


class MysqlProbe(SqlProbe):
    """Log in to a MySQL or MariaDB server, look at its connections, and send a query."""

    kind: ClassVar[str] = "mysql"
    mysql: Annotated[
        str, AfterValidator(lambda value: check_url(value, ("mysql", "mariadb"))), Field(repr=False)
    ]

    @model_validator(mode="after")
    def _library_is_there(self) -> Self:
        need("aiomysql", "mysql")
        return self

    def url(self) -> str:
        """Return the address as it is written."""
        return self.mysql

    def default_port(self) -> int:
        """Return the port of an address without one."""
        return 3306
