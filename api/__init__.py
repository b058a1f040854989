"""HTTP: publish, command, query, authenticate. Decides nothing about flows; the engine does."""
