"""`make chaos`: processes of a real region are killed at random instants; afterwards every record is accounted for.

It stands beside the benchmarks because it measures a running region from without and writes a result file, as they do:
`plan` says who dies when, `region` kills and starts again, `witness` copies every record as it is written to a tap (the
ground truth), `stored` reads the warehouse, `accounts` compares the two, `__main__` puts the parts together.
"""
