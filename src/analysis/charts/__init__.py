"""Figures of a report: one file each, drawn with one style, told in words as well."""
