"""Undo: bring back the captions that the last command changed, and leave what a person has changed since."""

from __future__ import annotations

import click

from prep.caption_files import close, write
from prep.captions import read_caption
from prep.ledger import Change, Ledger, State
from prep.options import UserError
from prep.store import Store


def undo(store: Store) -> None:
    """Bring back the captions that the last command changed; those changed by hand since stay."""
    with Ledger.open(store.hidden) as ledger:
        changes, stay = [], 0
        for key, state in ledger.before().items():
            item = store.get(key)
            if item is None:
                continue
            old = read_caption(item.path)
            now = State.of(item, old)
            if old is not None and old != item.written and not ledger.interrupted(key, old):
                stay += 1
                continue
            state.restore(item)
            if now != state:
                changes.append(Change(item, now, state.text))
        write(changes, [change.item for change in changes], store, ledger)
    close(store)
    if not changes and not stay:
        raise UserError(f"there is nothing to undo in {store.folder}: no command has changed a caption since the last undo")
    changed = f"; {stay} changed by hand since stay as they are" if stay else ""
    click.echo(f"{len(changes)} captions are as they were before{changed}", err=True)
