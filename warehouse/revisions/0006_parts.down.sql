ALTER TABLE $database.trace_points $on_cluster
RESET SETTING min_parts_to_merge_at_once, ratio_of_defaults_for_sparse_serialization;

ALTER TABLE $database.drop_points $on_cluster
RESET SETTING min_parts_to_merge_at_once, ratio_of_defaults_for_sparse_serialization;

ALTER TABLE $database.probes $on_cluster
RESET SETTING min_parts_to_merge_at_once, ratio_of_defaults_for_sparse_serialization;

ALTER TABLE $database.feeds $on_cluster
RESET SETTING min_parts_to_merge_at_once, ratio_of_defaults_for_sparse_serialization;

ALTER TABLE $database.node_counters $on_cluster
RESET SETTING min_parts_to_merge_at_once, ratio_of_defaults_for_sparse_serialization;

ALTER TABLE $database.losses $on_cluster
RESET SETTING min_parts_to_merge_at_once, ratio_of_defaults_for_sparse_serialization;

ALTER TABLE $database.batches $on_cluster
RESET SETTING min_parts_to_merge_at_once, ratio_of_defaults_for_sparse_serialization;
