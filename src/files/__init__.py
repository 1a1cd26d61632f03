"""Files: written whole or not at all, held against types, YAML 1.2."""
