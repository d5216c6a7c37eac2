"""Small commands on LoRA files."""
