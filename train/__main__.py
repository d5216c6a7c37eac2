"""`python -m train`: the train command where the scripts folder is not on PATH."""

from train.cli import main

main(prog_name="train")
