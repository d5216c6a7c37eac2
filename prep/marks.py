"""Marks: text, signatures, addresses and watermarks that were laid over a picture are found and kept out of the training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from PIL import Image

from prep.boxes import Corners, common, corners, find_boxes, inside
from prep.detectors import HELP, names_of
from prep.detectors.text import ENGINES, Line, reader
from prep.images import load, pixel_hash
from prep.inpainters import HELP as FILL_HELP
from prep.item import Box, Item
from prep.lettering import RULES, marks_of, scene_text
from prep.mark_actions import ACTIONS, Case, Treated
from prep.masks import update_mask
from prep.options import option
from prep.step import ParallelStep
from prep.store import Store

TRIM = "trim"  # label in item.marks of the part that a trim keeps; `prep crop` stays inside it
MASKED = "mark"  # label in item.masked
ASIDE = "marked"  # reason in item.dropped
DONE = {"trim": "mark_trimmed", "inpaint": "mark_inpainted", "mask": "mark_masked"}  # action -> note
REMAINS = "mark_remains"
SCENE = "scene_text"  # in item.measures: lines of text that belong to the scene
TRIES = 2  # of one action, the second time with what was found again
IGNORED = 0.5  # share of a line found again from which it lies in what the loss leaves out anyway


@dataclass(frozen=True)
class Marks(ParallelStep):
    """Find text, signatures, addresses and watermarks laid over the pictures, and do the mildest thing that removes them.

    A mark at the edge is trimmed off if no face is cut; a small one is filled in; a larger one is left out of the loss; a picture with
    one over the face is set aside. Then it is looked at again. Text of the scene, such as a shop sign, is left alone. The pictures
    themselves are not changed: a filled-in copy takes their place.
    """

    batch: ClassVar[int] = 1  # a whole picture and its layers are in memory

    action: str = option("auto", help="auto, or always the same one; none only notes the marks.", choices=("auto", *ACTIONS, "aside", "none"))
    ocr: str = option("embedded", help=f"What reads: {', '.join(ENGINES)}, or a folder with PaddleOCR's two models in ONNX.")
    inpainter: str = option("telea", help=f"What fills in: {FILL_HELP}.")
    detector: str = option("face", help=f"What finds the subject that a trim must keep: {HELP}.")
    margin: float = option(0.25, help="Room that a trim keeps around a face, in face widths.", min=0, max=3)
    scene: bool = option(False, help="Treat text that belongs to the scene as marks too.")
    device: str = option("auto", help="Where models run; cuda is an error where they cannot.", choices=("auto", "cpu", "cuda"), matters=False)

    def inputs(self, item: Item) -> Any:
        stat = item.path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    def todo(self, batch: list[Item]) -> list[Item]:
        """Give pictures set aside for their marks another chance when the options changed."""
        for item in batch:
            if item.dropped == ASIDE and self.stamp(item) != item.stamps.get(self.table()):
                item.drop("")
        return super().todo(batch)

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            self._work(item, store)
            yield item

    def _work(self, item: Item, store: Store) -> None:
        image = load(item.path)
        item.width, item.height = image.size
        item.digest = item.digest or pixel_hash(image)
        retouched = DONE["inpaint"] in item.notes
        _clear(item)
        case = self._case(item, image)
        item.marks += [line.box(name, image.size) for name, line in case.marks]
        action, treated, left = self._treat(case) if case.marks and self.action != "none" else ("", None, bool(case.marks))
        if treated is not None and treated.retouched:
            store.retouch(item, treated.image)
        elif retouched:
            store.retouch(item, None)
        self._note(item, action, treated, left)
        update_mask(item, store)

    def _case(self, item: Item, image: Image.Image) -> Case:
        """Look at a picture: its faces, its marks, and note how much text belongs to the scene."""
        boxes = find_boxes(item, image, names_of(self.detector), self.device)
        faces = [corners(box) for box in boxes if box.label == "face"]
        keep = [_with_margin(box, self.margin if box.label == "face" else 0, image.size) for box in boxes]
        lines = reader(self.ocr, self.device).lines(image)
        found = marks_of(lines, image.size, [box for box in boxes if box.label == "face"])
        others = scene_text(lines, image.size)
        item.measures.pop(SCENE, None)
        if others:
            item.measures[SCENE] = len(others)
        found += [(SCENE, line) for line in others] if self.scene else []
        return Case(image, found, keep, faces, self.inpainter, self.device)

    def _treat(self, case: Case) -> tuple[str, Treated | None, bool]:
        """Try the actions, mildest first, until nothing is found again; return the action, its result and whether a mark remains."""
        wanted = list(ACTIONS) if self.action == "auto" else [self.action] if self.action in ACTIONS else []
        last: tuple[str, Treated | None, bool] = ("", None, True)
        for action in wanted:
            attempt = case
            for _ in range(TRIES):
                treated = ACTIONS[action](attempt)
                if treated is None:
                    break
                left = self._look_again(attempt, treated)
                last = action, treated, bool(left)
                if not left:
                    return last
                attempt = replace(attempt, marks=[*attempt.marks, *left], again=True)
            case = replace(attempt, again=False) if self.action == "auto" else case
        return ("aside", None, False) if self.action in ("auto", "aside") else last

    def _look_again(self, case: Case, treated: Treated) -> list[tuple[str, Line]]:
        """Return the marks that are still in a treated picture, in pixels of the whole one."""
        x, y = treated.part[:2]
        size = treated.image.size
        faces = [Box("face", 1, *inside((x0 - x, y0 - y, x1 - x, y1 - y), (0, 0, *size))) for x0, y0, x1, y1 in case.faces]
        found = marks_of(reader(self.ocr, self.device).lines(treated.image), size, faces)
        moved = [(name, line.moved(x, y)) for name, line in found]
        return [(name, line) for name, line in moved if not _is_masked(line.box(name, case.image.size), treated.masked)]

    def _note(self, item: Item, action: str, treated: Treated | None, left: bool) -> None:
        """Write on the item what was done."""
        if action == "aside":
            texts = sorted({box.label for box in item.marks if box.label in (*RULES, SCENE)})
            item.drop(ASIDE, f"{', '.join(texts)} that cannot be removed without harm")
        elif treated is not None:
            item.notes.append(DONE[action])
            item.masked += treated.masked
            if action == "trim":
                item.marks.append(Box(TRIM, 1.0, *treated.part))
                item.crop = item.crop or treated.part
        if left:
            item.notes.append(REMAINS)


def _clear(item: Item) -> None:
    """Take away what this step wrote before, and nothing else."""
    for box in item.marks:
        if box.label == TRIM and item.crop == corners(box):
            item.crop = None
    item.marks = [box for box in item.marks if box.label not in (*RULES, SCENE, TRIM)]
    item.masked = [box for box in item.masked if box.label != MASKED]
    item.notes = [note for note in item.notes if note not in (*DONE.values(), REMAINS)]


def _with_margin(box: Box, margin: float, size: tuple[int, int]) -> Corners:
    room = round(margin * (box.x1 - box.x0))
    return common((box.x0 - room, box.y0 - room, box.x1 + room, box.y1 + room), (0, 0, *size))


def _is_masked(box: Box, masked: Sequence[Box]) -> bool:
    size = max((box.x1 - box.x0) * (box.y1 - box.y0), 1)
    hidden = sum(max(x1 - x0, 0) * max(y1 - y0, 0) for x0, y0, x1, y1 in (common(corners(box), corners(other)) for other in masked))
    return hidden / size > IGNORED
