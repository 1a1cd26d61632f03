"""A server of predictions: rows as JSON or CSV in, decoded predictions out."""
