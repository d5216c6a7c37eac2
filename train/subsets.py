"""Subsets: the [[subset]] tables of a dataset.toml, the tree's or the project's, each with what is different in one folder of the tree."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from prep.options import PROJECT_FILE, UserError, build, option, settings_of, unknown_keys
from prep.tree import Folder, read_tree

if TYPE_CHECKING:
    from train.config import DataConfig

# What of the run's own settings a folder may have for itself.
OWN = (
    "keep_tokens", "keep_tokens_separator", "secondary_separator", "shuffle_caption", "caption_dropout_rate", "caption_dropout_every_n_epochs",
    "caption_tag_dropout_rate", "caption_prefix", "caption_suffix", "enable_wildcard", "token_warmup_min", "token_warmup_step",
    "flip_aug", "color_aug", "random_crop", "alpha_mask",
)  # fmt: skip


@dataclass(frozen=True)
class Subset:
    """A folder of the tree and what is different there."""

    image_dir: str = option(help="The folder, as it is called in the tree: img/10_sks, or a path that ends so.")
    num_repeats: int | None = option(None, help="How often each picture is used in an epoch, in place of the folder's own number.", min=1)
    is_reg: bool | None = option(None, help="Whether the pictures are of the class, in place of the side on which the folder lies.")
    class_tokens: str | None = option(None, help="The caption of pictures that have none, in place of the folder's own words.")
    own: tuple[tuple[str, Any], ...] = ()  # setting of DataConfig -> its value here

    def is_of(self, folder: Folder) -> bool:
        """Tell whether a folder of the tree is meant: the same folder or, for a relative path, one that ends so."""
        meant, path = Path(self.image_dir), folder.path.resolve()
        if meant.is_absolute():
            return meant.resolve() == path
        parts = [part for part in PurePath(self.image_dir).parts if part != "."]
        return bool(parts) and list(path.parts[-len(parts) :]) == parts

    def applied(self, folder: Folder) -> Folder:
        """Return the folder as this subset has it."""
        concept = folder.concept if self.class_tokens is None else self.class_tokens
        is_reg = folder.is_reg if self.is_reg is None else self.is_reg
        return dataclasses.replace(folder, repeats=self.num_repeats or folder.repeats, is_reg=is_reg, concept=concept)


def read_subsets(tables: Any, kind: type[DataConfig]) -> tuple[Subset, ...]:
    """Read the [[subset]] tables; `kind` is the class of the settings that they may change. Raises one UserError with all faults."""
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise UserError("subset is not a list of tables; write each as [[subset]] with its settings below")
    subsets, faults = [], []
    for number, table in enumerate(tables, 1):
        try:
            subsets.append(_read(f"[[subset]] {number}", table, kind))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("; ".join(faults))
    return tuple(subsets)


def _read(where: str, table: Mapping[str, Any], kind: type[DataConfig]) -> Subset:
    own = {setting.key: setting for setting in settings_of(kind) if setting.key in OWN}
    faults = unknown_keys(where, table, [*(setting.key for setting in settings_of(Subset)), *own])
    if "image_dir" not in table:
        faults.append(f'{where} names no folder; give image_dir = "img/10_sks", say')
    values = []
    for key, value in table.items():
        if key in own:
            try:
                values.append((own[key].field, own[key].read(value)))
            except UserError as error:
                faults.append(f"{where} {key}: {error}")
    if faults:
        raise UserError("; ".join(faults))
    return dataclasses.replace(build(Subset, [(where, table)]), own=tuple(sorted(values)))


def read_tree_subsets(tree: Path, kind: type[DataConfig]) -> tuple[Subset, ...]:
    """Read the [[subset]] tables that `prep build` wrote into TREE/dataset.toml; none if there is no such file."""
    path = tree / PROJECT_FILE
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        faults = unknown_keys(str(path), found, ["subset"])
        if faults:
            raise UserError("; ".join(faults))
        return read_subsets(found.get("subset", []), kind)
    except FileNotFoundError:
        return ()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}; mend that line, or run `prep build` again") from None


def folders_of(data: DataConfig) -> list[tuple[Folder, DataConfig]]:
    """Read the tree's folders with the settings that hold in each: the tree's own subsets and, over them, those of the project."""
    built = dataclasses.replace(data, subsets=read_tree_subsets(data.tree, type(data)))
    return _applied(with_subsets(read_tree(data.tree), built), data.subsets)


def with_subsets(folders: Iterable[Folder], data: DataConfig) -> list[tuple[Folder, DataConfig]]:
    """Give each folder the settings that hold there by `data.subsets`; raises UserError if a subset names no folder, or several."""
    return _applied([(folder, data) for folder in folders], data.subsets)


def _applied(pairs: Sequence[tuple[Folder, DataConfig]], subsets: Iterable[Subset]) -> list[tuple[Folder, DataConfig]]:
    found: dict[Path, Subset] = {}
    for number, subset in enumerate(subsets, 1):
        meant = [folder for folder, _ in pairs if subset.is_of(folder)]
        if len(meant) != 1:
            names = ", ".join("/".join(folder.path.parts[-2:]) for folder in meant or [folder for folder, _ in pairs])
            words = "names no folder of the tree" if not meant else "names several folders of the tree"
            raise UserError(f"[[subset]] {number}: image_dir {subset.image_dir!r} {words}; give one of {names}")
        if meant[0].path in found:
            raise UserError(f"[[subset]] {number}: {meant[0].path} has a subset already; put their settings together")
        found[meant[0].path] = subset
    plain = Subset("")
    return [(found.get(f.path, plain).applied(f), dataclasses.replace(data, **dict(found.get(f.path, plain).own))) for f, data in pairs]
