"""A federation of sites with NVIDIA FLARE around the bundle's MONAI client."""
