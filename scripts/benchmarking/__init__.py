"""What `scripts/benchmark.py` measures: each module has ``rows`` for one part."""
