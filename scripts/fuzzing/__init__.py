"""Hostile input for every reader of foreign files, see docs/security.md."""
