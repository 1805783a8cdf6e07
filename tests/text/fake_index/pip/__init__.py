"""Stands in front of the real pip on PYTHONPATH: see `__main__`."""
