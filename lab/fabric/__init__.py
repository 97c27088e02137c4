"""The region without root: the real pipelines and the real prober, on simulated links, routers, hosts and time.

`Fabric` (engine.py) is moved on by a clock that the caller owns: tests run it at virtual time, `python -m lab.fabric`
by the wall clock. Everything on the way of a frame is either the product's own code (gateway._dataplane.Pipeline,
prober.engine.Engine) or lives in this package and is a simulation.
"""
