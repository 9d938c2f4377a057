"""The weights that the bundle ships: how they are made, and what is said of them."""
