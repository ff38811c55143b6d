"""How the embedded model was trained: `python -m lab train ...`."""
