"""The scores, a file each: its `METRIC` is found by `registry`, and tables, page and results follow."""
