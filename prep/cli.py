"""The `prep` command: one row per command, imported when asked for."""

from __future__ import annotations

import click

from prep.options import LazyGroup

COMMANDS = {
    "new": "prep.new:New",
    "clean": "prep.clean:Clean",
    "import": "prep.imports.step:Import",
    "dedup": "prep.dedup:Dedup",
    "marks": "prep.marks:Marks",
    "subject": "prep.subject:Subject",
    "identity": "prep.identity:Identity",
    "crop": "prep.crop:Crop",
    "tag": "prep.tag:Tag",
    "recheck": "prep.recheck:Recheck",
    "describe": "prep.describe:Describe",
    "caption": "prep.caption:Caption",
    "keyword": "prep.keyword:Keyword",
    "rare": "prep.rare:Rare",
    "tokens": "prep.tokens:Tokens",
    "stats": "prep.stats:Stats",
    "regularize": "prep.regularize:Regularize",
    "stock": "prep.stock:Stock",
    "build": "prep.build:Build",
    "check": "prep.check:Check",
    "export": "prep.export:Export",
    "review": "prep.review.command:Review",
    "run": "prep.run:Run",
    "demo": "pipelines.demo:demo",
}


@click.group(cls=LazyGroup, table=COMMANDS)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="lora-atelier")
def main(debug: bool) -> None:
    """Turn a folder of raw pictures into a checked training tree. ROOT is a folder of pictures or a project (default: the project here)."""
