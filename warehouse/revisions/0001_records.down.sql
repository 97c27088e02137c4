DROP TABLE $database.probes $on_cluster SYNC;
DROP TABLE $database.drop_points $on_cluster SYNC;
DROP TABLE $database.trace_points $on_cluster SYNC;
