"""Checks of data before any training: findings, and what is measured of any kind of data."""
