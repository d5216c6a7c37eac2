"""Moving in: configurations of sd-scripts and its GUI become a dataset.toml, and every argument of theirs is accounted for."""
