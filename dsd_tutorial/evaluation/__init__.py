"""What `dsd-tutorial evaluate ...` runs: one module per table in `results/`."""
