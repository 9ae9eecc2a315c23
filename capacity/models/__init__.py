"""Models: their aliases and shapes (known offline, without torch), loading, and the embedded abacus model."""
