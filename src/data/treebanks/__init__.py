"""Sentences with labels of each word."""
