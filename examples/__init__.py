"""Examples that run: one folder each, with a definition, its worker and where its input comes from."""
