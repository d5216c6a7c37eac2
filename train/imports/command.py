"""`train import`: make a dataset.toml out of configurations of sd-scripts or its GUI."""

from __future__ import annotations

from pathlib import Path

import click

from prep.options import PROJECT_FILE, UserError, atomic_write
from train.imports.read import read_source
from train.imports.translate import translate
from train.imports.tree import make_tree
from train.imports.write import account, text_of


@click.command("import", context_settings={"ignore_unknown_options": True})  # arguments of theirs begin with -- too
@click.argument("sources", nargs=-1, metavar="FILE...")
@click.option("--out", "-o", type=click.Path(path_type=Path), default=Path(PROJECT_FILE), show_default=True, help="The file to write.")
@click.option("--tree", type=click.Path(path_type=Path), help="Also make the tree there, of the pictures that the files name; links, not copies.")
@click.option("--all", "every", is_flag=True, help="List also what was taken over unchanged and what is needless.")
@click.option("--print", "only_print", is_flag=True, help="Print the file and write nothing.")
@click.option("--list", "listed", is_flag=True, help="List what becomes of every argument that there is, and read nothing.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def import_command(sources: tuple[str, ...], out: Path, tree: Path | None, every: bool, only_print: bool, listed: bool, force: bool) -> None:
    """Make dataset.toml out of FILE: a training TOML (--config_file) or dataset TOML (--dataset_config) of sd-scripts, a JSON that
    kohya_ss saved, a script with the command line, or its arguments in quotes. Of several, a later one holds over an earlier."""
    if listed:
        from train.imports.guide import lines

        click.echo("\n".join(lines()))
        return
    if not sources:
        raise click.UsageError("Missing argument 'FILE...'.")
    out = out / PROJECT_FILE if out.is_dir() else out
    if out.exists() and not (force or only_print):
        raise UserError(f"{out} exists already; choose another --out, or replace it by --force")
    folder = out.parent.resolve()
    readings = [reading for source in sources for reading in read_source(source)]
    draft = translate(readings, folder)
    if tree and not only_print:
        if not draft.sources:
            raise UserError("these files name no folders of pictures that lie outside a tree; leave --tree away")
        count = make_tree(draft.sources, tree)
        place = tree.resolve()
        draft.placed()
        draft.project["tree"] = place.relative_to(folder).as_posix() if place.is_relative_to(folder) else str(place)
        click.echo(f"{count} pictures in {tree}")
    text = text_of(draft, [reading.where or "the arguments" for reading in readings])
    for line in account(draft.notes, every):
        click.echo(line, err=only_print)
    if only_print:
        click.echo(text, nl=False)
        return
    atomic_write(out, text)
    click.echo(f"{out} written; see [project] in it, then `train run`")
