"""Inference spread over many workers."""
