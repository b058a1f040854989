"""The receiving phase of building permits at a Dutch municipality, after a real event log (`flowtrail demo`).

permit.yaml is the definition and worker.py performs its tasks; xes.py reads the log into inputs, expected.py counts the
branches straight from the same file without sharing a line with the others, generate.py makes a like-shaped log where
the real one is absent. Nothing here imports the server: only the SDK, as your own processes would.
"""
