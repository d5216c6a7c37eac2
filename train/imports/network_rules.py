"""Rules for the adapter: network_module, its dimensions, and the network_args that are settings of their own here."""

from __future__ import annotations

from typing import Any

from prep.options import UserError
from train.adapters import ADAPTERS
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

# Their modules -> the adapter here, and what differs.
MODULES = {
    "networks.lora": ("lora", ""),
    "networks.lora_fa": ("lora", "both halves of the LoRA are trained"),
    "networks.dylora": ("lora", "one rank is trained, not all at once; `train resize` makes smaller ones"),
    "networks.oft": ("diag-oft", "LyCORIS' diagonal kind stands in its place"),
    "networks.loha": ("loha", ""),
    "networks.lokr": ("lokr", ""),
    "locon.locon_kohya": ("lora", ""),
}
# LyCORIS' algo -> the same.
ALGOS = {
    "lora": ("lora", ""),
    "locon": ("lora", ""),
    "loha": ("loha", ""),
    "lokr": ("lokr", ""),
    "glora": ("glora", ""),
    "ia3": ("ia3", ""),
    "diag-oft": ("diag-oft", ""),
    "boft": ("diag-oft", "there is no butterfly; the diagonal kind stands in its place"),
    "dylora": ("lora", "one rank is trained, not all at once; `train resize` makes smaller ones"),
    "full": ("lora", "a difference of whole weights is not an adapter here; a LoRA stands in its place, or set full = true"),
}
LYCORIS = "lycoris.kohya"


def network_args(arguments: Arguments) -> dict[str, str]:
    """Return network_args by name."""
    return pairs(arguments.get("network_args"))


def algo(arguments: Arguments) -> tuple[str, str]:
    """Return the adapter here and what differs; raises UserError for a module of models that are not trained here."""
    module, args = str(arguments.get("network_module", "networks.lora")), network_args(arguments)
    if module == LYCORIS:
        name, text = ALGOS.get(args.get("algo", "lora").lower(), ("lora", f"there is no {args.get('algo')} here; a LoRA stands in its place"))
    elif module in MODULES:
        name, text = MODULES[module]
    elif module.startswith("networks."):
        raise UserError(f"network_module {module} is of models that are not trained here; take a configuration for SD 1.x, 2.x or SDXL")
    else:
        name, text = "lora", f"the module {module} is not here; a LoRA stands in its place"
    return ("dora" if name == "lora" and boolean(args.get("dora_wd")) else name), text


def network_module(value: Any, arguments: Arguments) -> Outcome:
    name, text = algo(arguments)
    if not text and str(arguments.get("network_module")) == LYCORIS and name in ("lora", "dora"):
        text = "LyCORIS' full preset also adapts the layers before and behind the UNet's blocks, which are left alone here"
    return Outcome(CHANGED if text else TAKEN, {"network_algo": name, **conv(arguments)}, text)


def dims(arguments: Arguments) -> tuple[int, float]:
    """Return rank and alpha with sd-scripts' defaults; an alpha of 0 is the rank."""
    dim, alpha = max(0, int(arguments.number("network_dim", 4))) or 4, arguments.number("network_alpha", 1.0)
    return dim, alpha if alpha > 0 else float(dim)


def network_dim(value: Any, arguments: Arguments) -> Outcome:
    return not_set() if value in OFF else Outcome(TAKEN, {"network_dim": coerced("network_dim", value)})


def network_alpha(value: Any, arguments: Arguments) -> Outcome:
    if value in (None, ""):
        return not_set()
    alpha = dims(arguments)[1]
    same = arguments.number("network_alpha") == alpha
    return Outcome(TAKEN if same else CHANGED, {"network_alpha": alpha}, "" if same else "an alpha that is not over 0 means the rank")


def conv(arguments: Arguments) -> dict[str, Any]:
    """Return rank and alpha of the 3x3 convolutions: LyCORIS has them as large as the others unless told, sd-scripts none and alpha 1."""
    args, (dim, alpha) = network_args(arguments), dims(arguments)
    lycoris = str(arguments.get("network_module")) in (LYCORIS, "locon.locon_kohya")
    try:
        conv_dim = int(float(args.get("conv_dim") or (dim if lycoris else 0)))
        conv_alpha = float(args.get("conv_alpha") or (alpha if lycoris else 1))
    except ValueError:
        raise UserError("conv_dim and conv_alpha are no numbers; write them as conv_dim=8 conv_alpha=4") from None
    return {"conv_dim": conv_dim, "conv_alpha": conv_alpha or float(conv_dim)} if conv_dim > 0 else {}


def only_unet(value: Any, arguments: Arguments) -> Outcome:
    return Outcome(TAKEN, {"train_text_encoder": False}) if boolean(value) else Outcome(NEEDLESS, text="is off")


def only_text_encoder(value: Any, arguments: Arguments) -> Outcome:
    if not boolean(value):
        return Outcome(NEEDLESS, text="is off")
    if arguments.on("network_train_unet_only"):
        return Outcome(LOST, text="network_train_unet_only is set too; the UNet is trained")
    return Outcome(TAKEN, {"train_unet": False})


def files(value: Any, arguments: Arguments) -> Outcome:
    found = [arguments.path(str(path)) for path in ([value] if isinstance(value, str) else value or [])]
    return Outcome(TAKEN, {"base_weights": "|".join(found)}) if any(found) else not_set()


def strengths(value: Any, arguments: Arguments) -> Outcome:
    return not_set() if value in (None, "", []) else Outcome(TAKEN, {"base_weights_multiplier": ",".join(listed(value))})


def weights(value: Any, arguments: Arguments) -> Outcome:
    return not_set() if value in OFF else Outcome(TAKEN, {"network_weights": arguments.path(str(value))})


def dropout(key: str) -> Rule:
    """Make the rule of a dropout, which not all adapters have."""

    def rule(value: Any, arguments: Arguments) -> Outcome:
        if value in (*OFF, "0.0"):
            return not_set()
        name = algo(arguments)[0]
        if key not in ADAPTERS[name].dropouts:
            return Outcome(LOST, text=f"{name} has no {key}, but {' and '.join(ADAPTERS[name].dropouts)}")
        return take(key)(value, arguments)

    return rule


def norms(value: Any, arguments: Arguments) -> Outcome:
    if value in (*OFF, "0.0"):
        return not_set()
    name = algo(arguments)[0]
    return take("scale_weight_norms")(value, arguments) if name in ("lora", "loha", "lokr") else Outcome(LOST, text=f"it does not work with {name}")


def patterns(key: str) -> Rule:
    """Make the rule of values by patterns of layer names: theirs are parted by commas, ours by blanks."""
    return lambda value, arguments: not_set() if value in OFF else Outcome(TAKEN, {key: " ".join(str(value).split(","))})


def plus(key: str) -> Rule:
    """Make the rule of a LoRA+ ratio, for which only LoRA and DoRA have an up half."""

    def rule(value: Any, arguments: Arguments) -> Outcome:
        name = algo(arguments)[0]
        return take(key)(value, arguments) if name in ("lora", "dora") else Outcome(LOST, text=f"{name} has no up half")

    return rule


def own_arguments(arguments: Arguments) -> tuple[str, dict[str, str]]:
    """Return our network_args, and of each argument that only another adapter takes why it is left out."""
    name, left = algo(arguments)[0], {}
    known, words = ADAPTERS[name].arguments, []
    for key, value in network_args(arguments).items():
        ours = ALIASES.get(key, key)
        if ours in known:
            off = isinstance(known[ours], bool) and not boolean(value)
            words += [] if off else [f"{ours}={value}"]
        elif ours in OWN and not (ours == "dora_wd" and name == "dora") and value.lower() not in ("false", "0", "-1", ""):
            left[key] = f"{name} has no {ours}"
    return " ".join(words), left


def network_arg(key: str, value: str, arguments: Arguments) -> Outcome | None:
    """Say what becomes of one of network_args; None if nobody knows it."""
    words, left = own_arguments(arguments)
    if key in left:
        return Outcome(LOST, text=left[key])
    if key in OWN or key in ALIASES:
        return Outcome(TAKEN, {"network_args": words} if words else {})
    rule = NETWORK_ARGS.get(key)
    return rule(value, arguments) if rule else None


def conv_rule(value: Any, arguments: Arguments) -> Outcome:
    found = conv(arguments)
    return Outcome(TAKEN, found) if found else not_set()


def kind(value: Any, arguments: Arguments) -> Outcome:
    """LyCORIS' algo; sd-scripts' own modules read none."""
    if str(arguments.get("network_module")) != LYCORIS:
        return Outcome(NEEDLESS, text="only LyCORIS reads it")
    name, text = algo(arguments)
    return Outcome(CHANGED if text else TAKEN, {"network_algo": name}, text)


ALIASES = {"use_cp": "use_tucker", "constrain": "constraint"}
OWN = {key for row in ADAPTERS.values() for key in row.arguments}  # what only some adapters have
LISTS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight", "up_lr_weight")
LYCORIS_ONLY = lost("this variant of LyCORIS is not offered")
NETWORK_ARGS: dict[str, Rule] = {
    **dict.fromkeys(("conv_dim", "conv_alpha"), conv_rule),
    "algo": kind,
    "preset": lost("all attention layers are adapted, and with conv_dim the residual blocks; leave parts out by network_reg_dims", off=("full",)),
    **{key: take_some(key) for key in LISTS},
    "block_lr_zero_threshold": take("block_lr_zero_threshold"),
    "network_reg_dims": patterns("network_reg_dims"),
    "network_reg_lrs": patterns("network_reg_lrs"),
    "loraplus_lr_ratio": plus("loraplus_lr_ratio"),
    "loraplus_unet_lr_ratio": plus("loraplus_unet_lr_ratio"),
    "loraplus_text_encoder_lr_ratio": plus("loraplus_text_encoder_lr_ratio"),
    "dropout": dropout("network_dropout"),
    "rank_dropout": dropout("rank_dropout"),
    "module_dropout": dropout("module_dropout"),
    "rank_dropout_scale": needless("the ranks that stay are always scaled up"),
    "rs_lora": take("rs_lora"),
    "bypass_mode": needless("how the update is computed is chosen by the run"),
    "unit": needless("only DyLoRA reads it"),
    "verbose": needless("only what is printed"),
    "train_norm": LYCORIS_ONLY,
    **dict.fromkeys(("use_scalar", "wd_on_output", "block_size", "unbalanced_factorization", "disable_conv_cp"), LYCORIS_ONLY),
    **dict.fromkeys(("exclude_patterns", "include_patterns"), lost("layers are left out and put in by network_reg_dims")),
    "train_llm_adapter": needless("only other models have one"),
}

RULES: dict[str, Rule] = {
    "network_module": network_module,
    "network_dim": network_dim,
    "network_alpha": network_alpha,
    "network_dropout": dropout("network_dropout"),
    "network_weights": weights,
    "dim_from_weights": take("dim_from_weights"),
    "network_train_unet_only": only_unet,
    "network_train_text_encoder_only": only_text_encoder,
    "scale_weight_norms": norms,
    "base_weights": files,
    "base_weights_multiplier": strengths,
    "stop_text_encoder_training": lost("the text encoder is trained to the end or not at all; lower text_encoder_lr", off=(-1,)),
}
