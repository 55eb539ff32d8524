"""Engines: where the work of a run is done, in this process, in worker processes or on a Ray cluster."""
