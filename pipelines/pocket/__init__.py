"""The embedded default: a drawn world, its tagger and its base model, all made by `python -m pipelines.pocket.make`."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
BASE = HERE / "base"  # a diffusers folder
TAGGER = HERE / "tagger"  # model.onnx and selected_tags.csv
CLASS_PROMPT = "1girl, solo"
MARKS = ("horns", "orange_scarf", "facial_mark")  # never in the base model's training pictures
