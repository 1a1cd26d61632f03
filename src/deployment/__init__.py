"""All that leaves the house: exported models, servers, and the model card of a run."""
