"""The optimizer's and the schedule's arguments."""

from __future__ import annotations

import math
import re
from typing import Any

from train.moving_in.moved import Moved, as_bool, asks_for_nothing, number
from train.optimizers import FOREIGN, OPTIMIZERS
from train.schedules import SCHEDULES

# optimizer_type in lower case -> ours, where it is another name, and why.
NAMES = {
    "": "adamw", "adamw32bit": "adamw", "dadaptation": "dadaptadam", "dadaptadampreprint": "dadaptadam",
    "pagedadamw": "adamw", "pagedadamw32bit": "adamw", "pagedlion8bit": "lion8bit", "sgdnesterov8bit": "sgdnesterov",
}  # fmt: skip
COURSES = {"adafactor": ("constant", "its rate is not relative here"), "": ("constant", "as where nothing is said")}
# Arguments that would have an optimizer set its own rate, which the run does.
OF_RATES = ("relative_step", "scale_parameter", "warmup_init")


def turn_optimizer(arguments: dict[str, Any], moved: Moved) -> None:
    """Take the optimizer and its arguments out."""
    asked = "optimizer_type" in arguments
    given = arguments.pop("optimizer_type", "")
    name = _name(str(given or ""))
    if name is None:
        moved.unsupported("optimizer_type", given, f"there is no such optimizer; adamw is set, and {', '.join(OPTIMIZERS)} are there")
    elif asks_for_nothing(given):
        if asked:
            moved.needless("optimizer_type", given, "adamw is taken where nothing is said, as there")
    else:
        moved.set("optimizer_type", given, {"optimizer": name}, "the nearest that there is" if str(given).lower() in NAMES else "")
    for flag, meant in (("use_8bit_adam", "adamw8bit"), ("use_lion_optimizer", "lion")):
        if flag in arguments:
            value = arguments.pop(flag)
            if as_bool(value):
                moved.set(flag, value, {"optimizer": meant})
            else:
                moved.needless(flag, value, "it asks for nothing")
    if "optimizer_args" in arguments:
        _arguments(arguments.pop("optimizer_args"), moved)


def _name(given: str) -> str | None:
    low = given.lower()
    if low in OPTIMIZERS:
        return low
    if low in NAMES:
        return NAMES[low]
    module, dot, cls = given.rpartition(".")
    if dot and module.startswith("pytorch_optimizer"):
        return FOREIGN + cls
    return next((ours for ours in OPTIMIZERS if dot and cls.lower() == ours), None)


def _arguments(given: Any, moved: Moved) -> None:
    text = " ".join(given) if isinstance(given, list) else str(given or "")
    text = re.sub(r"\s*([=,(\[])\s*", r"\1", text)  # betas=0.9, 0.99
    text = re.sub(r"\s+([)\]])", r"\1", text)
    kept = []
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals:
            moved.unsupported("optimizer_args", pair, "it is not NAME=VALUE")
        elif name in OF_RATES and as_bool(value):
            moved.unsupported(f"optimizer_args {name}", value, "the rates are set by learning_rate and lr_scheduler")
        elif name in OF_RATES:
            moved.needless(f"optimizer_args {name}", value, "it is so anyway")
        else:
            kept.append(f"{name}={value}")
            moved.set(f"optimizer_args {name}", value, {"optimizer_args": " ".join(kept)})
    if not text:
        moved.needless("optimizer_args", given, "it asks for nothing")


def turn_schedule(arguments: dict[str, Any], moved: Moved) -> None:
    """Take the course of the rate out; its warm-up is turned when the run's length is known."""
    if "lr_scheduler" not in arguments:
        return
    given = arguments.pop("lr_scheduler")
    name = str(given or "").lower()
    if name in SCHEDULES:
        moved.set("lr_scheduler", given, {"lr_scheduler": name})
    elif name in COURSES:
        moved.set("lr_scheduler", given, {"lr_scheduler": COURSES[name][0]}, COURSES[name][1])
    else:
        nearest = "cosine" if "cosine" in name else "constant_with_warmup"
        moved.unsupported("lr_scheduler", given, f"there is no such course; {nearest} is set")
        moved.settings["lr_scheduler"] = nearest


def turn_warmup(arguments: dict[str, Any], moved: Moved, steps: int | None) -> None:
    """Take the warm-up out: steps, or a share of them where it is under 1. `steps` are those of the run, if they are known."""
    if "lr_warmup_steps" not in arguments:
        return
    given = arguments.pop("lr_warmup_steps")
    count = number("lr_warmup_steps", given)
    if count < 1:
        moved.set("lr_warmup_steps", given, {"lr_warmup_ratio": count})
    elif steps:
        moved.set("lr_warmup_steps", given, {"lr_warmup_ratio": round(min(1.0, count / steps), 4)}, f"of {steps} steps")
    else:
        moved.unsupported("lr_warmup_steps", given, "it is a share of the run here, whose steps are not known: set lr_warmup_ratio to it / steps")


def turn_length(arguments: dict[str, Any], moved: Moved, samples: int) -> int | None:
    """Take the run's length out; returns its steps, if they are known. `samples` are those of an epoch, 0 if they are not known."""
    size = max(1, int(moved.settings.get("train_batch_size", 1)) * int(moved.settings.get("gradient_accumulation_steps", 1)))
    per_epoch = math.ceil(samples / size)
    given, asked = arguments.pop("max_train_epochs", None), arguments.pop("max_train_steps", None)
    epochs, steps = int(number("max_train_epochs", given)), int(number("max_train_steps", asked, 1600))
    if epochs > 0:
        moved.set("max_train_epochs", given, {"num_epochs": epochs})
        if asked is not None:
            moved.needless("max_train_steps", asked, "max_train_epochs has precedence, in sd-scripts too")
        return per_epoch * epochs or None
    if given is not None:
        moved.needless("max_train_epochs", given, "it asks for nothing")
    words = "the default" if asks_for_nothing(asked) else ""
    moved.set("max_train_steps", asked, {"max_train_steps": steps, "num_epochs": math.ceil(steps / per_epoch) if per_epoch else steps}, words)
    return steps
