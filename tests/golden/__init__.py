"""Logs of released versions (event-v*.jsonl), kept for ever, and what wrote the newest of them."""
