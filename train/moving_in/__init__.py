"""Moving in from sd-scripts and kohya_ss: their settings become a dataset.toml, and presets to begin with."""
