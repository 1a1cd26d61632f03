"""Explanations of trained models: attributions, the checks beside them, and how tasks share."""
