DROP VIEW $database.drop_points_1s_fill $on_cluster SYNC;
DROP TABLE $database.drop_points_1s $on_cluster SYNC;
DROP VIEW $database.trace_points_1s_fill $on_cluster SYNC;
DROP TABLE $database.trace_points_1s $on_cluster SYNC;
DROP VIEW $database.probes_1s_fill $on_cluster SYNC;
DROP TABLE $database.probes_1s $on_cluster SYNC;
