"""Commands a person runs; each file is a thin main over functions that the tests call."""
