"""Counterfactual edits and the causal filter that they decide."""
