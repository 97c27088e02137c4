DROP TABLE IF EXISTS $database.probes $on_cluster SYNC;
DROP TABLE IF EXISTS $database.drop_points $on_cluster SYNC;
DROP TABLE IF EXISTS $database.trace_points $on_cluster SYNC;
