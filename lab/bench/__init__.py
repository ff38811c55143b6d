"""What the companion costs: `python -m lab bench` -> results/benchmark.csv, and the README's lines.

timing.py     ways take turns; the fastest turn counts
released.py   the released way, as it works per pair
cases.py      one function per case, rows of the table
full_size.py  Stable Diffusion 1.5 at full size with random weights, in a process of its own
report.py     the README's lines and the chart of how cost grows
"""
