-- What lands each second makes a small part in each table. With the engine's defaults every fifth of them has all small
-- parts of a day, and the one they were merged into, written anew: in a region that does nothing that took more of a core
-- than the inserts did. So many parts wait until they are merged that it is rare, and few enough that a reader, who opens
-- each of them, does not feel it. Columns that are mostly zero stand as they are: they compress to nothing anyway, and what
-- marks them as sparse costs each insert and each merge.

ALTER TABLE $database.trace_points $on_cluster
MODIFY SETTING min_parts_to_merge_at_once = 24, ratio_of_defaults_for_sparse_serialization = 1;

ALTER TABLE $database.drop_points $on_cluster
MODIFY SETTING min_parts_to_merge_at_once = 24, ratio_of_defaults_for_sparse_serialization = 1;

ALTER TABLE $database.probes $on_cluster
MODIFY SETTING min_parts_to_merge_at_once = 24, ratio_of_defaults_for_sparse_serialization = 1;

ALTER TABLE $database.feeds $on_cluster
MODIFY SETTING min_parts_to_merge_at_once = 24, ratio_of_defaults_for_sparse_serialization = 1;

ALTER TABLE $database.node_counters $on_cluster
MODIFY SETTING min_parts_to_merge_at_once = 24, ratio_of_defaults_for_sparse_serialization = 1;

ALTER TABLE $database.losses $on_cluster
MODIFY SETTING min_parts_to_merge_at_once = 24, ratio_of_defaults_for_sparse_serialization = 1;

ALTER TABLE $database.batches $on_cluster
MODIFY SETTING min_parts_to_merge_at_once = 24, ratio_of_defaults_for_sparse_serialization = 1;
