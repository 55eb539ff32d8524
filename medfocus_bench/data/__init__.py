"""Samples, benchmark folders and how they are found."""
