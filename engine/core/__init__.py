"""The pure core: decide, evolve, initial state. No clock, no random, no I/O, no Kafka, no database."""
