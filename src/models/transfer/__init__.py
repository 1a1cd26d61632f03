"""Starting a model from a trained one, and training parts of it."""
