"""Weights to ship with the bundle: how they are made, and what is said of them."""
