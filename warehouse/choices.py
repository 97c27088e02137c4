"""Which settings a request may choose, in its URL and in SETTINGS: a list for readers, a longer one for the writer.

What stands on a list is done by the engine for real. Limits may be lowered. What the engine knows and the list has not
is refused as a constraint, among it everything that holds an expression (`additional_table_filters`), names a file or a
server (`format_schema`, `output_format_schema`), or changes how statements are read (`dialect`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from warehouse.refusals import Refusal
from warehouse.tokens import Token, word

# How an answer is written.
_FORMS = (
    r"output_format_(arrow|binary|bson|csv|decimal|float|json|markdown|msgpack|native|orc|parquet|pretty|sql_insert|trim"
    r"|tsv|values)_\w+|output_format_(always_write_decimal_point_in_float_and_decimal|parallel_formatting|write_statistics"
    r"|enable_streaming|compression_level|avro_(codec|sync_interval|string_column_pattern|rows_in_file))"
    r"|format_(csv|tsv|custom|binary)_\w+|formatdatetime_\w+|(date_time|interval)_output_format|bool_(true|false)_representation"
    r"|extremes|session_timezone|low_cardinality_allow_in_native_format"
)
# What a query means; plain values only.
_MEANINGS = (
    r"limit|offset|final|join_use_nulls|group_by_use_nulls|join_algorithm|join_default_strictness|joined_subquery_requires_alias"
    r"|transform_null_in|totals_mode|totals_auto_threshold|empty_result_for_aggregation_by_empty_set"
    r"|aggregate_functions_null_for_empty|(union|intersect|except)_default_mode|prefer_column_name_to_alias"
    r"|cast_keep_nullable|cast_string_to_\w+|use_variant_as_common_type|data_type_default_nullable|count_distinct_implementation"
    r"|date_time_input_format|do_not_merge_across_partitions_select_final|apply_deleted_mask"
    r"|allow_(experimental|suspicious)_(variant|dynamic|json|object|bfloat16|time_time64|nullable_tuple|fixed_string"
    r"|low_cardinality|variant_in_order_by)_types?|allow_suspicious_types_in_(group|order)_by|enable_(json|dynamic|variant)_type"
    r"|enable_time_time64_type|any_join_distinct_right_table_keys|asterisk_include_(alias|materialized)_columns"
)
# How it is gone about; no row depends on these.
_WAYS = (
    r"optimize_\w+|query_plan_\w+|force_(primary_key|index_by_date|data_skipping_indices)|use_skip_indexes\w*|max_block_size"
    r"|preferred_block_size_bytes|use_query_cache|use_uncompressed_cache|compile_\w+|enable_optimize_predicate_expression"
    r"|log_(comment|queries|query_settings|profile_events)|priority|min_execution_speed|timeout_before_checking_execution_speed"
    r"|(result|read|group_by|sort|distinct|join|set|timeout)_overflow_mode|load_balancing|distributed_\w+_mode|prefer_localhost_replica"
    r"|connect_timeout|(send|receive)_timeout|http_(connection|send|receive)_timeout|enable_http_compression|http_zlib_compression_level"
    r"|network_(compression_method|zstd_compression_level)|send_progress_in_http_headers|http_headers_progress_interval_ms"
    r"|cancel_http_readonly_queries_on_client_close|http_wait_end_of_query|http_response_buffer_size|interactive_delay"
)
# Limits, lower for whoever asks: each with what 0 means, no limit.
_LIMITS = """
max_execution_time max_estimated_execution_time max_memory_usage max_threads max_result_rows max_result_bytes
max_rows_to_read max_bytes_to_read max_rows_to_group_by max_bytes_to_sort max_rows_to_sort max_rows_in_distinct
max_bytes_in_distinct max_rows_in_join max_bytes_in_join max_rows_in_set max_bytes_in_set max_columns_to_read
max_subquery_depth max_ast_depth max_ast_elements max_expanded_ast_elements max_query_size max_parser_depth
"""
LIMITS = frozenset(_LIMITS.split())
# What an insert means, and how DDL waits.
_WRITING = (
    r"input_format_(csv|json|tsv|parquet|arrow|orc|values|native|binary|msgpack|bson|avro|custom|null|defaults|skip|import"
    r"|with|allow|parallel|max)_\w+|input_format_(avro_allow_missing_fields)"
    r"|insert_(deduplicate|deduplication_token|null_as_default|allow_materialized_columns)|async_insert\w*|wait_for_async_insert\w*"
    r"|deduplicate_\w+|update_insert_deduplication_token_in_dependent_materialized_views|(min|max)_insert_\w+"
    r"|max_partitions_per_insert_block|throw_on_max_partitions_per_insert_block|materialized_views_ignore_errors"
    r"|parallel_view_processing|mutations_sync|alter_sync|lightweight_deletes_sync|flatten_nested"
    r"|database_atomic_wait_for_drop_and_detach_synchronously|distributed_ddl_\w+|allow_suspicious_\w+|allow_nullable_key"
    r"|materialize_ttl_after_modify|optimize_on_insert|optimize_throw_if_noop|insert_quorum\w*|select_sequential_consistency"
    r"|non_replicated_deduplication_window"
)
# What Parquet holds of an answer is counted by no limit.
_HELD = r"(?!output_format_parquet_(?:parallel|row_group|batch|data_page|max))"
_READER = re.compile(f"{_HELD}(?:{_FORMS}|{_MEANINGS}|{_WAYS})")
_WRITER = re.compile(f"(?:{_FORMS}|{_MEANINGS}|{_WAYS}|{_WRITING})")
# Of a table. The rest says where its rows lie (disk, storage_policy).
_TABLE = re.compile(
    r"index_granularity\w*|non_replicated_deduplication_window|replicated_deduplication_window\w*|ttl_only_drop_parts"
    r"|merge_with_\w*ttl_timeout|min_(rows|bytes)_for_wide_part|parts_to_(delay|throw)_insert|allow_nullable_key"
    r"|deduplicate_merge_projection_mode|enable_block_\w+_column|max_bytes_to_merge_at_m\w+|old_parts_lifetime"
    r"|min_parts_to_merge_at_once|ratio_of_defaults_for_sparse_serialization"
)
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Policy:
    """`known`: the names of the engine's settings. `caps`: a reader's own limits, which it may lower."""

    known: frozenset[str]
    caps: Mapping[str, float]

    def chosen(self, asked: Mapping[str, str], *, reader: bool) -> dict[str, str]:
        """The settings of a request's URL that are to be applied. Refusal.

        A reader's limit that is higher than its own stays as it is: clients send limits of theirs.
        """
        out = {}
        for name, value in asked.items():
            self._may(name, reader)
            if not reader or name not in LIMITS or self._lowers(name, value):
                out[name] = value
        return out

    def clauses(self, cut: list[Token], *, reader: bool) -> int:
        """How many SETTINGS clauses a statement has. Refusal for what may not be chosen, or for a raised limit."""
        found = 0
        creates = not reader and bool(cut) and word(cut[0]) in ("CREATE", "REPLACE")
        alters = not reader and bool(cut) and word(cut[0]) == "ALTER"
        for i, token in enumerate(cut):
            before = word(cut[i - 1]) if i else ""
            if alters and word(token) == "SETTING" and before in ("MODIFY", "RESET"):
                of_table = dict(pairs(cut[i + 1 :]))
                if not of_table or not all(map(_TABLE.fullmatch, of_table)):
                    raise Refusal(452, f"{before} SETTING: these are not settings of a table that may be changed here")
                found += before == "MODIFY"
                continue
            if word(token) != "SETTINGS" or before == "SHOW" or (i and cut[i - 1].text == "."):
                continue
            chosen = dict(pairs(cut[i + 1 :]))
            found += bool(chosen)
            for name, value in chosen.items():
                if creates and _TABLE.fullmatch(name):
                    continue
                self._may(name, reader)
                if reader and name in LIMITS and not self._lowers(name, value):
                    raise Refusal(452, f"Setting {name} shouldn't be greater than {self.caps[name]:g}, got {value}")
        return found

    def _may(self, name: str, reader: bool) -> None:
        if name not in self.known:
            raise Refusal(115, f"Unknown setting {name!r}")
        if not ((_READER if reader else _WRITER).fullmatch(name) or name in LIMITS):
            raise Refusal(452, f"Setting {name} should not be changed")

    def _lowers(self, name: str, value: str) -> bool:
        """Whether it is at most the reader's own limit; 0 is none."""
        if not _NUMBER.fullmatch(value):
            raise Refusal(36, f"Setting {name}: expected a number, got {value!r}")
        cap = self.caps.get(name)
        return cap is None or 0 < float(value) <= cap


def pairs(cut: Iterable[Token]) -> Iterator[tuple[str, str]]:
    """The settings at the start of these tokens: `a = 1, b = 'x', c`. `c` alone is 1. Ends where no other follows."""
    rest = list(cut)
    at = 0
    while at < len(rest) and rest[at].kind in ("word", "name"):
        name = rest[at].text
        at += 1
        if at < len(rest) and rest[at].text == "=":
            start = at = at + 1
            depth = 0
            while at < len(rest):
                text = rest[at].text if rest[at].kind == "sign" else ""
                if depth == 0 and at > start and (text in (",", ")", ";") or rest[at].kind == "word"):
                    break
                depth += (text in ("(", "[", "{")) - (text in (")", "]", "}"))
                at += 1
            yield name, _value(rest[start:at])
        elif at == len(rest) or rest[at].text in (",", ")", ";") or word(rest[at]) in ("FORMAT", "SETTINGS"):
            yield name, "1"
        else:
            return
        if at == len(rest) or rest[at].text != ",":
            return
        at += 1


def _value(cut: list[Token]) -> str:
    if len(cut) == 1 and cut[0].kind == "text":
        return cut[0].text[1:-1].replace("\\'", "'").replace("''", "'").replace("\\\\", "\\")
    return "".join(token.text for token in cut)
