"""Runs the MONAI Deploy application in its own environment: `make deploy-test`."""
