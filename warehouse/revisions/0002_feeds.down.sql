DROP TABLE IF EXISTS $database.batches $on_cluster SYNC;
DROP TABLE IF EXISTS $database.losses $on_cluster SYNC;
DROP TABLE IF EXISTS $database.node_counters $on_cluster SYNC;
DROP TABLE IF EXISTS $database.feeds $on_cluster SYNC;
