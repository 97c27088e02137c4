"""`make mutants`: small faults are put into the code, one at a time, and the tests must notice each.

`mutate` makes them (with mutmut's operators) and draws a sample, `watch` learns which test runs which line, `trial`
runs the tests of one mutant in a copy of the tree, `__main__` puts them together and writes out/mutants/report.json.
mutmut's own runner is not used: it wants every test in one process that it forks, and ours start processes themselves.
"""
