DROP VIEW IF EXISTS $database.drop_points_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.drop_points_1s $on_cluster SYNC;
DROP VIEW IF EXISTS $database.trace_points_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.trace_points_1s $on_cluster SYNC;
DROP VIEW IF EXISTS $database.probes_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.probes_1s $on_cluster SYNC;
