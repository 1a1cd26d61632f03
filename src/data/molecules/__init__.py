"""Molecules: fingerprints, descriptors and graphs."""
