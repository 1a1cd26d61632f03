"""Files: written whole or not at all, and checked before their content is used."""
