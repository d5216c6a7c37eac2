"""The networks of Stable Diffusion: UNet, CLIP's text encoder and VAE, with the names that diffusers and transformers give their tensors.

They are written here and not imported because a run uses nothing else of those libraries, whose imports take longer than reading a
checkpoint. `tests/train/modules` holds them against the libraries' own.
"""
