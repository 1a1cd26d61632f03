"""What a run will take on its devices, and how it is laid out there."""
