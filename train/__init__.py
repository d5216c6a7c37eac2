"""The LoRA trainer: a checked tree in, one .safetensors file out."""
