"""Tables: columns, rows, splits, labels, texts and images of a table."""
