"""Rules for optimizer, rates and schedule: theirs to ours, with the defaults of theirs where ours differ."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prep.options import UserError
from train.imports.outcome import (
    CHANGED,
    LOST,
    NEEDLESS,
    OFF,
    TAKEN,
    Arguments,
    Outcome,
    Rule,
    boolean,
    coerced,
    listed,
    lost,
    needless,
    not_set,
    pairs,
    take,
    take_some,
)  # fmt: skip
from train.optimizer_classes import parse_arguments
from train.optimizers import row_of
from train.schedules import SCHEDULES


@dataclass(frozen=True)
class Theirs:
    """One of their optimizers: ours, what theirs has by default where ours has not, and what differs."""

    ours: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


RELATIVE = "its rate is learning_rate, where sd-scripts' is relative to the step unless relative_step=False"
NO_DECAY = {"weight_decay": 0.0}
UNPAGED = "its memory is not moved off the GPU"
# Defaults are those of the classes that sd-scripts calls: lion-pytorch, bitsandbytes, prodigyopt, dadaptation, schedulefree, transformers.
OPTIMIZERS: dict[str, Theirs] = {
    "adamw": Theirs("adamw"),
    "adamw8bit": Theirs("adamw8bit"),
    "pagedadamw8bit": Theirs("pagedadamw8bit"),
    "pagedadamw": Theirs("adamw", text=UNPAGED),
    "pagedadamw32bit": Theirs("adamw", text=UNPAGED),
    "lion": Theirs("lion", NO_DECAY),
    "lion8bit": Theirs("lion8bit", NO_DECAY),
    "pagedlion8bit": Theirs("lion8bit", NO_DECAY, UNPAGED),
    "sgdnesterov": Theirs("sgdnesterov"),
    "sgdnesterov8bit": Theirs("sgdnesterov", text="the momentum is not held in 8 bits"),
    "dadaptation": Theirs("dadaptadam", {**NO_DECAY, "decouple": False}, "its authors' Adam took the place of this preprint"),
    "dadaptadampreprint": Theirs("dadaptadam", {**NO_DECAY, "decouple": False}, "its authors' Adam took the place of this preprint"),
    "dadaptadam": Theirs("dadaptadam", {**NO_DECAY, "decouple": False}),
    "dadaptlion": Theirs("dadaptlion", NO_DECAY),
    "dadaptadagrad": Theirs("pytorch_optimizer:DAdaptAdaGrad"),
    "dadaptadan": Theirs("pytorch_optimizer:DAdaptAdan"),
    "dadaptadanip": Theirs("pytorch_optimizer:DAdaptAdan", text="without the correction by inner products"),
    "dadaptsgd": Theirs("pytorch_optimizer:DAdaptSGD"),
    "prodigy": Theirs("prodigy", {**NO_DECAY, "use_bias_correction": False, "safeguard_warmup": False}),
    "prodigyplusschedulefree": Theirs("prodigy", text="the plain Prodigy, without averaging in place of a schedule"),
    "adafactor": Theirs("adafactor", {"scale_parameter": True}),
    "adamwschedulefree": Theirs("adamwschedulefree", NO_DECAY),
    "radamschedulefree": Theirs("radamschedulefree", NO_DECAY),
    "sgdschedulefree": Theirs("pytorch_optimizer:ScheduleFreeSGD"),
    "came": Theirs("pytorch_optimizer:CAME"),
    "ademamix": Theirs("pytorch_optimizer:AdEMAMix"),
    "ademamix8bit": Theirs("pytorch_optimizer:AdEMAMix", text="its memory is not held in 8 bits"),
    "adan": Theirs("pytorch_optimizer:Adan"),
}
SCHEDULER_CLASSES = {"rex": "rex", "onecyclelr": "one_cycle", "cosineannealinglr": "cosine", "constantlr": "constant", "linearlr": "linear"}
NEAREST = {
    "piecewise_constant": "constant",
    "adafactor": "constant",
    "cosine_with_min_lr": "cosine",
    "cosine_warmup_with_min_lr": "cosine",
    "inverse_sqrt": "polynomial",
    "warmup_stable_decay": "rex",
    "reduce_lr_on_plateau": "constant_with_warmup",
}
SAME = ("learning_rate", "unet_lr", "text_encoder_lr")


def their_optimizer(arguments: Arguments) -> str:
    """Return the optimizer that is asked for, also by one of the old switches."""
    old = "AdamW8bit" if arguments.on("use_8bit_adam") else "Lion" if arguments.on("use_lion_optimizer") else "AdamW"
    return str(arguments.get("optimizer_type", old))


def row(arguments: Arguments) -> Theirs:
    """Return what their optimizer is here; a class of pytorch-optimizer is that class, a stranger is adamw with the reason."""
    name = their_optimizer(arguments)
    module, _, plain = name.rpartition(".")
    if plain.lower() in OPTIMIZERS:
        return OPTIMIZERS[plain.lower()]
    if module.split(".")[0] == "pytorch_optimizer":
        return Theirs(f"pytorch_optimizer:{plain}")
    near = difflib.get_close_matches(plain.lower(), OPTIMIZERS, 1)
    return Theirs("adamw", text=f"there is no {name} here{f', did you mean {near[0]}?' if near else ''}; AdamW stands in its place")


def optimizer_type(value: Any, arguments: Arguments) -> Outcome:
    theirs = row(arguments)
    missing, text = theirs.text.startswith("there is no"), theirs.text
    if theirs.ours == "adafactor" and "relative_step" not in pairs(arguments.get("optimizer_args")):
        text = RELATIVE
    return Outcome(LOST if missing else CHANGED if text else TAKEN, {"optimizer": theirs.ours}, text)


def old_switch(value: Any, arguments: Arguments) -> Outcome:
    """The two switches that chose an optimizer before optimizer_type did."""
    return optimizer_type(value, arguments) if boolean(value) else Outcome(NEEDLESS, text="is off")


def optimizer_args(arguments: Arguments) -> tuple[str, list[str]]:
    """Return optimizer_args as ours has it, with their defaults written out, and the sentences for what cannot stand there."""
    theirs, faults = row(arguments), []
    found = {**theirs.defaults, **pairs(arguments.get("optimizer_args"))}
    if theirs.ours == "adafactor":
        relative = [boolean(found.pop(key, "")) for key in ("relative_step", "warmup_init")]
        if any(relative):
            faults.append(RELATIVE)
    words: list[str] = []
    for key, value in found.items():
        word = f"{key}={str(value).replace(' ', '')}"
        try:
            parse_arguments(" ".join([*words, word]))
            words.append(word)
        except UserError as error:
            faults.append(str(error))
    return " ".join(words), faults


def arguments_of_optimizer(value: Any, arguments: Arguments) -> Outcome:
    text, faults = optimizer_args(arguments)
    return Outcome(LOST if faults else TAKEN, {"optimizer_args": text}, "; ".join(faults)) if text or faults else not_set()


def rate(key: str) -> Rule:
    """Make the rule of a rate; an optimizer that finds one takes a single factor for all parts."""

    def rule(value: Any, arguments: Arguments) -> Outcome:
        numbers = [float(word) for word in listed(value)] if value not in (None, "") and not isinstance(value, float | int) else None
        if numbers == [] or value in (None, ""):
            return not_set()
        if numbers is not None and len(set(numbers)) > 1:
            return two_encoders(numbers, arguments)
        number = numbers[0] if numbers else float(value)
        if key != "learning_rate" and number == 0:
            part = "unet" if key == "unet_lr" else "text_encoder"
            return Outcome(CHANGED, {f"train_{part}": False}, f"a rate of 0 trains nothing, so the {part}'s part is left out")
        if row_of(row(arguments).ours).finds_rate:
            return found_rate(key, number, arguments)
        return Outcome(TAKEN, {key: coerced(key, number)})

    return rule


def found_rate(key: str, number: float, arguments: Arguments) -> Outcome:
    """An optimizer that finds the rate multiplies it by one factor, which is 1 unless it was set to something near."""
    factor = arguments.number("learning_rate", 1.0)
    factor = factor if factor >= 0.1 else 1.0
    if key == "learning_rate":
        same = number == factor
        return Outcome(TAKEN if same else CHANGED, {key: factor}, "" if same else "the optimizer finds the rate, and this is a factor on it")
    return Outcome(NEEDLESS if number == factor else CHANGED, {}, "the optimizer finds one rate for all parts; learning_rate is the factor on it")


def two_encoders(numbers: list[float], arguments: Arguments) -> Outcome:
    """SDXL's two text encoders with a rate each."""
    if row_of(row(arguments).ours).finds_rate:
        return Outcome(CHANGED, {}, "the optimizer finds one rate for all parts")
    first, second = numbers[:2]
    if not first and not second:
        return Outcome(CHANGED, {"train_text_encoder": False}, "rates of 0 train nothing")
    if not arguments.sdxl:
        return Outcome(CHANGED, {"text_encoder_lr": first}, "there is one text encoder")
    common = first or second
    lrs = f"lora_te1={first:g} lora_te2={second:g}"
    return Outcome(CHANGED, {"text_encoder_lr": common, "network_reg_lrs": lrs}, "the two encoders' rates are network_reg_lrs")


def scheduler(value: Any, arguments: Arguments) -> Outcome:
    """Take the course; a class of one that is here is that one, else the nearest is."""
    asked = str(arguments.get("lr_scheduler_type") or arguments.get("lr_scheduler", "constant"))
    plain = asked.rpartition(".")[2]
    name = SCHEDULER_CLASSES.get(plain.lower(), plain.lower())
    if row_of(row(arguments).ours).schedule_free and not name.startswith("constant"):
        return Outcome(CHANGED, {"lr_scheduler": "constant"}, "the optimizer takes the place of a schedule")
    if name in SCHEDULES:
        return Outcome(TAKEN, {"lr_scheduler": name})
    nearest = NEAREST.get(name.partition(":")[0], "cosine")
    return Outcome(LOST, {"lr_scheduler": nearest}, f"there is no {asked} here; {nearest} is nearest")


def scheduler_type(value: Any, arguments: Arguments) -> Outcome:
    return not_set() if value in OFF else scheduler(value, arguments)


def total_steps(arguments: Arguments) -> int:
    """Return the run's steps if the arguments say them, else 0."""
    return 0 if arguments.number("max_train_epochs") > 0 and not arguments.on("steps_win") else int(arguments.number("max_train_steps", 0))


def ratio_of(steps: int, total: int) -> float:
    """Return the share of `total` that makes exactly `steps` when it is rounded down."""
    ratio = min(1.0, steps / total)
    while int(ratio * total) < min(steps, total):
        ratio = math.nextafter(ratio, 1.0)
    return ratio


def warmup(value: Any, arguments: Arguments) -> Outcome:
    """Theirs is a number of steps, or under 1 a share as ours."""
    number = arguments.number("lr_warmup_steps")
    if str(arguments.get("lr_scheduler", "constant")) == "constant" and not arguments.get("lr_scheduler_type"):
        return not_set() if not number else Outcome(NEEDLESS, text="the constant course has no warm-up")
    if number < 1:
        return Outcome(TAKEN, {"lr_warmup_ratio": number})
    total = total_steps(arguments)
    if not total:
        text = "steps of warm-up are a share of the run here, whose length only its pictures tell; set lr_warmup_ratio to steps / all steps"
        return Outcome(LOST, {"lr_warmup_ratio": 0.05}, text)
    return Outcome(CHANGED, {"lr_warmup_ratio": ratio_of(int(number), total)}, f"{number:g} of {total} steps")


LENGTHS = lost("the course falls until the run's end")
RULES: dict[str, Rule] = {
    "optimizer_type": optimizer_type,
    "use_8bit_adam": old_switch,
    "use_lion_optimizer": old_switch,
    "optimizer_args": arguments_of_optimizer,
    **{key: rate(key) for key in SAME},
    "lr_scheduler": scheduler,
    "lr_scheduler_type": scheduler_type,
    "lr_scheduler_args": lost("the courses have no further arguments"),
    "lr_scheduler_num_cycles": take_some("lr_scheduler_num_cycles"),
    "lr_scheduler_power": take("lr_scheduler_power"),
    "lr_scheduler_timescale": needless("only inverse_sqrt reads it"),
    "lr_scheduler_min_lr_ratio": lost("the course falls to 0"),
    "lr_warmup_steps": warmup,
    "lr_decay_steps": LENGTHS,
    "max_grad_norm": take("max_grad_norm"),
    "gradient_accumulation_steps": take_some("gradient_accumulation_steps"),
    "fused_backward_pass": lost("gradients are kept until the step; take adamw8bit if memory is short"),
    "fused_optimizer_groups": lost("gradients are kept until the step; take adamw8bit if memory is short"),
    "block_lr": lost("a full fine-tune has one rate for the UNet"),
    "learning_rate_te": take("text_encoder_lr"),
    "learning_rate_te1": take("text_encoder_lr"),
    "learning_rate_te2": needless("text_encoder_lr is both encoders'"),
    "train_text_encoder": take("train_text_encoder"),
    "no_train_text_encoder": lambda value, arguments: Outcome(TAKEN, {"train_text_encoder": not boolean(value)}),
}
