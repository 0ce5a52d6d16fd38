"""The functions and nodes that untrusted SQL may use. All others are refused, including new functions of DuckDB.

No function here reads a file, a setting, the environment or the catalog, runs SQL from text, waits, or makes a large
value from a small one (`repeat`, `lpad`, `format`). `range` and `generate_series` are allowed, because series of days
need them; the memory limit and the deadline of the process limit their size.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from typing import Any

from lakebed.errors import QueryRefused
from lakebed.query.statement import nodes

__all__ = ["FUNCTIONS", "TABLE_FUNCTIONS", "check"]

_COMPARING = "between coalesce greatest if ifnull least nullif typeof"
_NUMBERS = """
    abs acos acosh add asin asinh atan atan2 atanh bin bit_count cbrt ceil ceiling cos cosh cot degrees divide even exp
    factorial fdiv floor fmod gamma gcd greatest_common_divisor hex isfinite isinf isnan lcm least_common_multiple
    lgamma ln log log10 log2 mod multiply nextafter pi pow power radians random round round_even roundbankers sign
    signbit sin sinh sqrt subtract tan tanh to_base trunc xor
"""
_TEXT = """
    array_to_string ascii base64 bit_length char_length character_length chr concat concat_ws contains
    damerau_levenshtein decode editdist3 encode ends_with from_base64 from_hex hamming hash ilike_escape instr jaccard
    jaro_similarity jaro_winkler_similarity lcase left left_grapheme len length length_grapheme levenshtein like_escape
    lower ltrim md5 md5_number mismatches nfc_normalize not_ilike_escape not_like_escape octet_length ord overlay
    parse_dirname parse_dirpath parse_filename parse_path position prefix regexp_escape regexp_extract
    regexp_extract_all regexp_full_match regexp_matches regexp_replace regexp_split_to_array replace reverse right
    right_grapheme rtrim sha1 sha256 split split_part starts_with str_split str_split_regex string_split
    string_split_regex string_to_array strip_accents strlen strpos substr substring substring_grapheme suffix
    to_base64 to_hex translate trim ucase unhex unicode upper url_decode url_encode
"""
_TIME = """
    age century current_date current_localtime current_localtimestamp date_add date_diff date_part date_sub date_trunc
    datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms
    epoch_ns epoch_us era get_current_time get_current_timestamp hour isodow isoyear julian last_day make_date make_time
    make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz microsecond millennium millisecond minute month
    monthname nanosecond now quarter second strftime strptime time_bucket timezone timezone_hour timezone_minute
    to_centuries to_days to_decades to_hours to_microseconds to_millennia to_milliseconds to_minutes to_months
    to_quarters to_seconds to_timestamp to_weeks to_years today transaction_timestamp try_strptime week weekday
    weekofyear year yearweek ago
"""
_NESTED = """
    aggregate apply array_aggr array_aggregate array_append array_apply array_cat array_concat array_contains
    array_distinct array_extract array_filter array_grade_up array_has array_has_all array_has_any array_indexof
    array_intersect array_length array_pop_back array_pop_front array_position array_prepend array_push_back
    array_push_front array_reduce array_reverse array_reverse_sort array_select array_slice array_sort array_transform
    array_unique array_value array_where array_zip cardinality element_at filter flatten generate_series grade_up
    generate_subscripts list_aggr list_aggregate list_any_value list_append list_apply list_approx_count_distinct
    list_avg list_bit_and list_bit_or list_bit_xor list_bool_and list_bool_or list_cat list_concat list_contains
    list_count list_distinct list_element list_entropy list_extract list_filter list_first list_grade_up list_has
    list_has_all list_has_any list_histogram list_indexof list_intersect list_kurtosis list_last list_mad list_max
    list_median list_min list_mode list_pack list_position list_prepend list_product list_reduce list_reverse
    list_reverse_sort list_select list_sem list_skewness list_slice list_sort list_stddev_pop list_stddev_samp
    list_string_agg list_sum list_transform list_unique list_value list_var_pop list_var_samp list_where list_zip map
    map_concat map_contains map_contains_entry map_contains_value map_entries map_extract map_extract_value
    map_from_entries map_keys map_values range reduce row struct_concat struct_contains struct_extract struct_extract_at
    struct_has struct_indexof struct_insert struct_keys struct_pack struct_position struct_update struct_values
    unnest unpivot_list columns
"""
_JSON = """
    array_to_json from_json json json_array json_array_length json_contains json_exists json_extract json_extract_path
    json_extract_path_text json_extract_string json_group_array json_group_object json_group_structure json_keys
    json_merge_patch json_object json_quote json_structure json_transform json_type json_valid json_value row_to_json
    to_json
"""
_OTHER = "gen_random_uuid uuid uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7"
_AGGREGATES = """
    any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last
    arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bool_and bool_or corr
    count count_if count_star countif covar_pop covar_samp entropy favg first fsum geomean geometric_mean group_concat
    histogram histogram_exact kahan_sum kurtosis kurtosis_pop last list listagg mad max max_by mean median min min_by
    mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness stddev stddev_pop stddev_samp string_agg sum sumkahan
    var_pop var_samp variance wavg weighted_avg
"""
_WINDOW = """
    cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense row_number
"""
FUNCTIONS = frozenset(
    f"{_COMPARING} {_NUMBERS} {_TEXT} {_TIME} {_NESTED} {_JSON} {_OTHER} {_AGGREGATES} {_WINDOW}".split()
)
TABLE_FUNCTIONS = frozenset({"generate_series", "json_each", "json_tree", "range", "unnest"})
_OPERATOR = re.compile(r"[^\w\s]+|!__postfix")

# Kinds of the parsed tree: nodes, tables, modifiers, expressions. SHOW_REF (DESCRIBE, SHOW) and VALUE_DEFAULT are left
# out on purpose.
_KINDS = re.compile(
    r"SELECT_NODE|SET_OPERATION_NODE|RECURSIVE_CTE_NODE|CTE_NODE"
    r"|BASE_TABLE|EMPTY|EXPRESSION_LIST|JOIN|PIVOT|SUBQUERY|TABLE_FUNCTION"
    r"|DISTINCT_MODIFIER|LIMIT_MODIFIER|LIMIT_PERCENT_MODIFIER|ORDER_MODIFIER|ASCENDING|DESCENDING|ORDER_DEFAULT"
    r"|ARRAY_CONSTRUCTOR|ARRAY_EXTRACT|ARRAY_SLICE|CASE_EXPR|COLLATE|COLUMN_REF|FUNCTION|GROUPING_FUNCTION|LAMBDA"
    r"|POSITIONAL_REFERENCE|STAR|STRUCT_EXTRACT|TYPE|VALUE_CONSTANT|VALUE_PARAMETER"
    r"|COMPARE_[A-Z_]+|CONJUNCTION_[A-Z_]+|OPERATOR_[A-Z_]+|WINDOW_[A-Z_]+|[A-Z_]+_TYPE_INFO"
)
_PATHLIKE = re.compile(r"[./\\:]")  # DuckDB reads a table of such a name as a file
_NOWHERE = 1 << 63


def check(text: str, tree: Any, *, tables: Collection[str], catalog: Collection[str]) -> None:
    """Refuse a parsed statement that uses anything outside the allowlist.

    Args:
        text: the statement.
        tree: the parsed statements, from `json_serialize_sql`.
        tables: tables that the statement may name, in lower case.
        catalog: other existing tables, in lower case. No CTE may have such a name: because of the CTE the name would be
            allowed, but where the CTE is out of scope it would mean the table.

    Raises:
        QueryRefused: the message says what is not allowed, where it is, and what is allowed.
    """
    parsed = list(nodes(tree))
    ctes = {str(key).lower() for key in _ctes(parsed)}
    for name in ctes:
        if name in catalog or _PATHLIKE.search(name):
            raise QueryRefused(f"a CTE is named {name!r}, which DuckDB reserves", hint="Rename the CTE")
    sources = {id(node.get("function")) for node in parsed if node.get("type") == "TABLE_FUNCTION"}
    for node in parsed:
        kind, function = node.get("type"), node.get("function_name")
        if isinstance(kind, str) and not _KINDS.fullmatch(kind):
            what = kind.removesuffix("_NODE").removesuffix("_QUERY").replace("SHOW_REF", "DESCRIBE or SHOW")
            raise _refused(text, node, f"{what} is not allowed over the network", "Give one SELECT that only reads")
        if kind == "BASE_TABLE":
            _check_table(text, node, tables, ctes)
        if function is not None:
            _check_function(text, node, str(function).lower(), is_table=id(node) in sources)


def _check_table(text: str, node: dict[str, Any], tables: Collection[str], ctes: Collection[str]) -> None:
    name, hint = str(node.get("table_name")), f"Allowed tables: {', '.join(sorted(tables))}"
    if node.get("schema_name") or node.get("catalog_name"):
        full = ".".join(str(node.get(key)) for key in ("catalog_name", "schema_name", "table_name") if node.get(key))
        raise _refused(text, node, f"the table {full} is not allowed: name a table without a schema", hint)
    if name.lower() not in tables and name.lower() not in ctes:
        raise _refused(text, node, f"there is no table {name}", hint)


def _check_function(text: str, node: dict[str, Any], name: str, *, is_table: bool) -> None:
    if is_table and name not in TABLE_FUNCTIONS:
        message = f"the table function {name} is not allowed over the network"
        raise _refused(text, node, message, f"Allowed functions: {', '.join(sorted(TABLE_FUNCTIONS))}")
    if not is_table and name not in FUNCTIONS and not _OPERATOR.fullmatch(name):
        near = difflib.get_close_matches(name, FUNCTIONS, 3)
        hint = f"Allowed functions: {', '.join(near)} and others" if near else "docs/sql.md lists what is allowed"
        raise _refused(text, node, f"the function {name} is not allowed over the network", hint)


def _refused(text: str, node: dict[str, Any], message: str, hint: str) -> QueryRefused:
    location = node.get("query_location")
    if not isinstance(location, int) or location >= _NOWHERE:
        return QueryRefused(f"{message}. {hint}")
    before = text.encode()[:location].decode(errors="ignore")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return QueryRefused(f"line {line}, column {column}: {message}. {hint}", line=line, column=column)


def _ctes(nodes: list[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        cte_map = node.get("cte_map")
        if isinstance(cte_map, dict):
            yield from (entry["key"] for entry in cte_map.get("map", ()))
        if node.get("cte_name"):
            yield node["cte_name"]
