"""Questions across recorded flows: a small typed language in JSON, aggregations, comparison, and what another rule would keep."""
