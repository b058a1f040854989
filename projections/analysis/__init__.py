"""What read models say of many flows at once: paths, times, waits, and what to do about them; driven and recorded alike.

Nothing is kept for it: the steps of the flows that are asked for are aggregated in Postgres (sql/queries/analysis.sql).
"""
