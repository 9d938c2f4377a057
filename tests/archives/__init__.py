"""Synthetic archives in the layouts of the world, made from the phantom."""
