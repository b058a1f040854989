"""Correlators, schedules and limiters: what many flows share, kept beside them in the partition. Pure."""
