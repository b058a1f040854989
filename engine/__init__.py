"""Flowtrail's engine: decides what happens next in every flow. See docs/architecture.md."""

VERSION = "0.2.0"
