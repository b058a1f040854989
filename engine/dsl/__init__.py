"""Definitions: parsed, checked and compiled. Pure: no I/O, no clock, no randomness lives or is imported here."""
