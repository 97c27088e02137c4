"""The engine's own grants: a role for each kind of handle. What a role has not been granted, the engine itself refuses.

The embedded engine knows one user. It is granted every role, and nothing but roles; a handle takes one of them and can
take another only by a statement that the guard refuses. No role but the owner's may read files, URLs or other servers.
The engine asks no grant for tables of `system` and for scalar functions: those are the guard's alone.
"""

from __future__ import annotations

from pathlib import Path

# The first handle's, which makes databases and migrates.
OWNER = "owner"
_ON_EVERY_DATABASE = (
    "SHOW, SELECT, INSERT, ALTER TABLE, ALTER VIEW, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP DATABASE,"
    " DROP TABLE, DROP VIEW, TRUNCATE, OPTIMIZE, CHECK, KILL QUERY"
)


def grants(database: str) -> dict[str, list[str]]:
    """Role -> its grants. `database`: the product's, the only one of readers."""
    return {
        OWNER: ["GRANT ALL ON *.*"],
        "reader": [f"GRANT SHOW, SELECT ON {database}.*"],
        "writer": [f"GRANT {_ON_EVERY_DATABASE} ON *.*"],
        # The data of an INSERT stands in a file of the warehouse's own.
        "inserter": ["GRANT SELECT, INSERT ON *.*", "GRANT READ ON FILE"],
        # EXPLAIN AST reads nothing.
        "parser": [],
    }


def write(folder: Path, database: str) -> Path:
    """Write the engine's configuration with these grants into a folder; the file to open it with."""
    roles = "".join(
        f"<{role}><grants>{''.join(f'<query>{query}</query>' for query in queries)}</grants></{role}>"
        for role, queries in grants(database).items()
    )
    granted = "".join(f"<query>GRANT {role}</query>" for role in grants(database))
    users = folder.resolve() / "users.xml"
    users.write_text(
        f"<clickhouse><profiles><default/></profiles><quotas><default/></quotas><roles>{roles}</roles><users><default>"
        "<password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>"
        f"<grants>{granted}</grants></default></users></clickhouse>\n"
    )
    config = folder.resolve() / "config.xml"
    config.write_text(f"<clickhouse><users_config>{users}</users_config></clickhouse>\n")
    return config
