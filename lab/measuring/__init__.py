"""What `python -m lab measure ...` runs: one module per table in `results/`."""
