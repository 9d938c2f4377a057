"""Parts of ``scripts/export.py``: the trained generator in the forms that others run, and as one zip."""
