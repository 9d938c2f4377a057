"""The parts of ``scripts/soak.py``: workflows on tiny data, faults, and the comparison with an undisturbed run."""
