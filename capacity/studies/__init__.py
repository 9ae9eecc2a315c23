"""Studies: a checked TOML file that names a grid of runs, and the sweep that makes them."""
