DROP TABLE $database.batches $on_cluster SYNC;
DROP TABLE $database.losses $on_cluster SYNC;
DROP TABLE $database.node_counters $on_cluster SYNC;
DROP TABLE $database.feeds $on_cluster SYNC;
