"""Robustness: how a run's scores fall where its inputs are corrupted or attacked."""
