"""Explanations of the virtual DES: what drives a lesion's enhancement, how certain it is, and whether that is true."""
