"""Runs of attribution methods: over a benchmark, on one picture, on dev to tune them; and their packing."""
