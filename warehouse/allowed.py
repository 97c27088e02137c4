"""What a statement may be made of: kinds of nodes, functions, table functions, tables. What is not here is refused.

Functions stand in functions.txt. All lists were read against ClickHouse 26.9; a test finds what a newer engine adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FUNCTIONS = frozenset(
    name
    for line in (Path(__file__).parent / "functions.txt").read_text().splitlines()
    if not line.startswith("#")
    for name in line.split()
)
# Table functions that compute, or read what their arguments say and the tree shows.
TABLE_FUNCTIONS = frozenset(
    {
        "numbers",
        "numbers_mt",
        "zeros",
        "zeros_mt",
        "values",
        "view",
        "generateseries",
        "generate_series",
        "null",
        "primes",
    }
)
# Columns of a system table that tell where the server keeps things, or what others asked.
SYSTEM_TABLES: Mapping[str, frozenset[str]] = {
    name: frozenset(hidden.split())
    for name, hidden in {
        "aggregate_function_combinators": "",
        "collations": "",
        "columns": "",
        "contributors": "",
        "current_roles": "",
        "data_skipping_indices": "",
        "data_type_families": "",
        "database_engines": "",
        "databases": "data_path metadata_path",
        "dictionaries": "source last_exception",
        "enabled_roles": "",
        "events": "",
        "formats": "",
        "functions": "",
        "keywords": "",
        "licenses": "license_path license_text",
        "merge_tree_settings": "",
        "metrics": "",
        "mutations": "latest_fail_reason",
        "numbers": "",
        "numbers_mt": "",
        "one": "",
        "parts": "path disk_name",
        "parts_columns": "path disk_name",
        "projections": "",
        "settings": "",
        "table_engines": "",
        "table_functions": "",
        "tables": "data_paths metadata_path",
        "time_zones": "",
        "zeros": "",
        "zeros_mt": "",
    }.items()
}
INFORMATION_SCHEMA = frozenset({"information_schema", "INFORMATION_SCHEMA"})
# Engines of tables that keep their rows in the warehouse itself.
TABLE_ENGINES = frozenset(
    {
        "MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "CollapsingMergeTree",
        "VersionedCollapsingMergeTree", "CoalescingMergeTree", "Memory", "Null", "Log", "TinyLog", "StripeLog",
        "Atomic",
    }
)  # fmt: skip


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMPUTING = _names("""
SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery ExpressionList Identifier TableIdentifier Literal Function
Subquery TablesInSelectQuery TablesInSelectQueryElement TableExpression TableJoin ArrayJoin Asterisk QualifiedAsterisk
ColumnsRegexpMatcher ColumnsListMatcher QualifiedColumnsRegexpMatcher QualifiedColumnsListMatcher ColumnsTransformerList
ColumnsApplyTransformer ColumnsExceptTransformer ColumnsReplaceTransformer ColumnsReplaceTransformer::Replacement
WithElement OrderByElement InterpolateElement WindowListElement WindowDefinition SampleRatio Set
""")
# Nodes of what a reader may ask.
READS = _COMPUTING | _names("""
DescribeQuery ShowTables ShowColumns ShowIndexes ShowFunctions ShowEngineQuery ShowSetting ShowCreateTableQuery
ShowCreateViewQuery ShowCreateDatabaseQuery ExistsTableQuery ExistsViewQuery ExistsDatabaseQuery Explain
""")
# Roots of the writer's statements, and what may stand below them beside what computes.
WRITES = READS | _names("""
InsertQuery CreateQuery DropQuery TruncateQuery AlterQuery OptimizeQuery Rename DeleteQuery UpdateQuery
KillQueryQuery CheckQuery Columns ColumnDeclaration DataType NameTypePair Index Constraint Projection
ProjectionSelectQuery Storage TTLElement AlterCommand Assignment Partition ViewTargets
""")
EXPLAINED = frozenset(
    {"EXPLAIN", "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE", "EXPLAIN PIPELINE", "EXPLAIN ESTIMATE"}
)
# What CREATE and DROP are about.
OBJECTS = frozenset({"TABLE", "VIEW", "MATERIALIZED", "DATABASE"})
ALTERATIONS = _names("""
ADD_COLUMN DROP_COLUMN MODIFY_COLUMN COMMENT_COLUMN RENAME_COLUMN CLEAR_COLUMN MATERIALIZE_COLUMN MODIFY_ORDER_BY
MODIFY_TTL MATERIALIZE_TTL REMOVE_TTL ADD_INDEX DROP_INDEX CLEAR_INDEX MATERIALIZE_INDEX ADD_PROJECTION
DROP_PROJECTION CLEAR_PROJECTION MATERIALIZE_PROJECTION ADD_CONSTRAINT DROP_CONSTRAINT DELETE UPDATE DROP_PARTITION
MODIFY_COMMENT MODIFY_QUERY MODIFY_SETTING RESET_SETTING
""")
