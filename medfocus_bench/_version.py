"""The version of the package; imports nothing, so that every module may ask for it."""

__version__ = "0.1.0"
