"""`python -m prep`: the prep command where the scripts folder is not on PATH."""

from prep.cli import main

main(prog_name="prep")
