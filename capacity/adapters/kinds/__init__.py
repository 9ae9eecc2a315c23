"""How each kind of adapter is put on a model."""
