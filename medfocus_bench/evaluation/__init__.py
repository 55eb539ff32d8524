"""Scores of attributions: regions from maps, overlap, ranking scores, statistics, reports."""
