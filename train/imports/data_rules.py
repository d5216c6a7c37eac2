"""Rules for pictures, captions, buckets, the objective and the length of a run."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

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
    take,
    take_some,
)  # fmt: skip

SIDES = {"train_data_dir": "img", "reg_data_dir": "reg"}


def folder_of(path: str) -> PurePosixPath:
    """Read a path of any system with slashes as separators."""
    return PurePosixPath(PureWindowsPath(path).as_posix()) if "\\" in path or PureWindowsPath(path).drive else PurePosixPath(path)


def tree_of(arguments: Arguments) -> str:
    """Return the tree if the folders of pictures are img/ and, with regularization, reg/ of one folder; else nothing."""
    folders = {side: folder_of(str(arguments.get(name))) for name, side in SIDES.items() if arguments.get(name)}
    parents = {folder.parent for folder in folders.values()}
    fits = "img" in folders and len(parents) == 1 and all(folder.name == side for side, folder in folders.items())
    return str(parents.pop()) if fits else ""


def data_dir(name: str) -> Rule:
    """Make the rule of a folder of N_concept folders: their img/ and reg/ side by side are a tree; any other is copied into one."""
    side = SIDES[name]

    def rule(value: Any, arguments: Arguments) -> Outcome:
        if value in OFF:
            return not_set()
        tree = tree_of(arguments)
        if tree and side == "img" and not arguments.get("reg_data_dir") and (Path(tree) / "reg").is_dir():
            text = f"{Path(tree) / 'reg'} lies beside it and will be read too; rename that folder if it is not wanted"
            return Outcome(CHANGED, project={"tree": arguments.path(tree)}, text=text)
        if tree:
            return Outcome(TAKEN, project={"tree": arguments.path(tree)})
        return Outcome(CHANGED, project={"tree": "tree"}, text=f"put its N_concept folders into tree/{side}, or import again with --tree")

    return rule


def resolution(value: Any, arguments: Arguments) -> Outcome:
    """Ours is the side of a square; theirs may be width and height, of which only the area counts once there are buckets."""
    if value in OFF:
        return not_set()
    sides = [int(float(word)) for word in listed(value)]
    if len(set(sides)) == 1:
        return Outcome(TAKEN, {"resolution": coerced("resolution", sides[0])})
    side = round(math.sqrt(math.prod(sides[:2])))
    return Outcome(CHANGED, {"resolution": side}, f"{sides[0]} x {sides[1]} has the area of a square of {side}")


def bucket_steps(value: Any, arguments: Arguments) -> Outcome:
    if value in OFF:
        return not_set()
    steps = coerced("bucket_reso_steps", value)
    rounded = max(8, round(steps / 8) * 8)
    if rounded == steps:
        return Outcome(TAKEN, {"bucket_reso_steps": steps})
    return Outcome(CHANGED, {"bucket_reso_steps": rounded}, "sides are multiples of the 8 pixels of a latent")


def suffix(value: Any, arguments: Arguments) -> Outcome:
    if value in OFF or str(value).lstrip(".").lower() in ("txt", "caption"):
        return Outcome(NEEDLESS, text="captions are read from .txt and .caption files")
    return Outcome(LOST, text="captions are read from .txt and .caption files; rename those that end otherwise")


def separator(value: Any, arguments: Arguments) -> Outcome:
    if value in OFF or str(value).strip() == ",":
        return Outcome(NEEDLESS, text="a comma parts tags")
    return Outcome(LOST, text="a comma parts tags; put commas into the captions")


def text_of(key: str) -> Rule:
    """Make the rule of a text that theirs and ours use alike, blanks in it kept."""
    return lambda value, arguments: not_set() if value in (None, "") else Outcome(TAKEN, {key: str(value)})


def masked_loss(value: Any, arguments: Arguments) -> Outcome:
    if not boolean(value):
        return Outcome(NEEDLESS, text="is off")
    text = "masks are the pictures' own transparency here; bring those of conditioning_data_dir into an alpha channel"
    return Outcome(CHANGED, {"alpha_mask": True}, text if arguments.get("conditioning_data_dir") else "masks are the pictures' own transparency here")


def cache_to_disk(value: Any, arguments: Arguments) -> Outcome:
    return Outcome(TAKEN, {"cache_latents_to_disk": True}) if boolean(value) else Outcome(NEEDLESS, text="encoded pictures are kept either way")


def epochs(value: Any, arguments: Arguments) -> Outcome:
    return Outcome(TAKEN, {"num_epochs": coerced("num_epochs", value)}) if arguments.number("max_train_epochs") > 0 else not_set()


def steps(value: Any, arguments: Arguments) -> Outcome:
    """A number of steps ends the run; num_epochs is then as many as could ever be needed."""
    if arguments.number("max_train_epochs") > 0 and not arguments.on("steps_win"):
        return Outcome(NEEDLESS, text="max_train_epochs takes its place")
    if arguments.number("max_train_steps") <= 0:
        return not_set()
    count = coerced("max_train_steps", value)
    return Outcome(CHANGED, {"max_train_steps": count, "num_epochs": count}, "it ends the run, whatever num_epochs says")


def max_timestep(value: Any, arguments: Arguments) -> Outcome:
    return not_set() if value in OFF or arguments.number("max_timestep") >= 1000 else take("max_timestep")(value, arguments)


def noise(value: Any, arguments: Arguments) -> Outcome:
    """Pyramid noise; over a noise offset, which the GUI's noise_offset_type decides, it is left out."""
    if value in OFF:
        return not_set()
    if arguments.number("noise_offset") > 0:
        return Outcome(LOST, text="noise_offset is set, and both add coarse noise")
    return Outcome(TAKEN, {"multires_noise_iterations": coerced("multires_noise_iterations", value)})


def with_switch(key: str, owner: str) -> Rule:
    """Make the rule of a setting that means something only beside another that is over 0."""

    def rule(value: Any, arguments: Arguments) -> Outcome:
        if value in OFF:
            return not_set()
        if arguments.number(owner) <= 0:
            return Outcome(NEEDLESS, text=f"means nothing without {owner}")
        return take(key)(value, arguments)

    return rule


def debiased(value: Any, arguments: Arguments) -> Outcome:
    if not boolean(value):
        return Outcome(NEEDLESS, text="is off")
    if arguments.number("min_snr_gamma") > 0:
        return Outcome(LOST, text="min_snr_gamma weighs the timesteps already; set that to 0 to take this instead")
    return Outcome(TAKEN, {"debiased_estimation_loss": True})


def dataset_class(value: Any, arguments: Arguments) -> Outcome:
    return not_set() if value in OFF else Outcome(LOST, text="data sets of other classes are not loaded; bring the pictures into a tree")


RULES: dict[str, Rule] = {
    "train_data_dir": data_dir("train_data_dir"),
    "reg_data_dir": data_dir("reg_data_dir"),
    **dict.fromkeys(("in_json", "metadata_file"), lost("captions stand beside the pictures; `prep` reads and writes them as .txt files")),
    "dataset_repeats": lost("repeats are the N of the tree's N_concept folders; rename them"),
    "dataset_class": dataset_class,
    "conditioning_data_dir": lost("masks are the pictures' own transparency; bring them into an alpha channel"),
    "masked_loss": masked_loss,
    "alpha_mask": take("alpha_mask"),
    "train_batch_size": take_some("train_batch_size"),
    "max_train_epochs": epochs,
    "max_train_steps": steps,
    "steps_win": needless("the GUI lets its steps win over its epochs"),
    "resolution": resolution,
    "enable_bucket": take("enable_bucket"),
    "min_bucket_reso": take_some("min_bucket_reso"),
    "max_bucket_reso": take_some("max_bucket_reso"),
    "bucket_reso_steps": bucket_steps,
    "bucket_no_upscale": take("bucket_no_upscale"),
    "skip_image_resolution": lost("small pictures are set aside by `prep clean`"),
    "resize_interpolation": needless("pictures are resized by Lanczos"),
    **dict.fromkeys(("cache_latents", "cache_info", "skip_cache_check"), needless("what is encoded is kept, under names made from its content")),
    "cache_latents_to_disk": cache_to_disk,
    "cache_text_encoder_outputs": take("cache_text_encoder_outputs"),
    "cache_text_encoder_outputs_to_disk": needless("captions are encoded once and kept if cache_text_encoder_outputs is set"),
    "text_encoder_batch_size": needless("chosen by the run itself"),
    "caption_extension": suffix,
    "caption_extention": suffix,
    "caption_separator": separator,
    "shuffle_caption": take("shuffle_caption"),
    "keep_tokens": take("keep_tokens"),
    "keep_tokens_separator": text_of("keep_tokens_separator"),
    "secondary_separator": text_of("secondary_separator"),
    "caption_prefix": text_of("caption_prefix"),
    "caption_suffix": text_of("caption_suffix"),
    "enable_wildcard": take("enable_wildcard"),
    "weighted_captions": take("weighted_captions"),
    "caption_dropout_rate": take("caption_dropout_rate"),
    "caption_dropout_every_n_epochs": take("caption_dropout_every_n_epochs"),
    "caption_tag_dropout_rate": take("caption_tag_dropout_rate"),
    "token_warmup_min": take("token_warmup_min"),
    "token_warmup_step": take("token_warmup_step"),
    "no_token_padding": lost("captions are padded to 75 tokens, as the web UIs do"),
    "color_aug": take("color_aug"),
    "flip_aug": take("flip_aug"),
    "random_crop": take("random_crop"),
    "face_crop_aug_range": lost("faces are cropped beforehand, by `prep crop`"),
    "custom_attributes": lost("only other networks read it"),
    "prior_loss_weight": take("prior_loss_weight"),
    "noise_offset": take("noise_offset"),
    "noise_offset_random_strength": with_switch("noise_offset_random_strength", "noise_offset"),
    "adaptive_noise_scale": with_switch("adaptive_noise_scale", "noise_offset"),
    "multires_noise_iterations": noise,
    "multires_noise_discount": with_switch("multires_noise_discount", "multires_noise_iterations"),
    "ip_noise_gamma": take("ip_noise_gamma"),
    "ip_noise_gamma_random_strength": with_switch("ip_noise_gamma_random_strength", "ip_noise_gamma"),
    "min_snr_gamma": take("min_snr_gamma"),
    "debiased_estimation_loss": debiased,
    "scale_v_pred_loss_like_noise_pred": lost("timesteps of v-prediction are weighed by min_snr_gamma or debiased_estimation_loss here"),
    "v_pred_like_loss": lost("no share of the loss of another prediction is added"),
    "min_timestep": take("min_timestep"),
    "max_timestep": max_timestep,
    "loss_type": take("loss_type"),
    "huber_schedule": take("huber_schedule"),
    "huber_c": take("huber_c"),
    "huber_scale": lost("a loss is not multiplied; the optimizer's rate does it", off=(1, 1.0, "1", "1.0")),
}  # fmt: skip
