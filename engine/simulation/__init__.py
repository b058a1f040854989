"""The whole engine in one thread: in-memory topics, crashing nodes, careless workers, a virtual clock, one seed.

Not a stand-in for tests of the broker (those run on a real one): here the protocol's order of steps is tried under
thousands of schedules that a real machine would take days to meet. See `World`.
"""
