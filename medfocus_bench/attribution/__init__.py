"""Attribution methods for LVLMs."""
