"""Benchmarks: what the README's figures come from. Each prints one JSON object last, on a stack of its own."""
