"""Verified results as files, and the static page that shows them."""
