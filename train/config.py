"""Every knob of a training run, written once: a frozen dataclass per section, read from one flat [train] table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.options import UserError, build, load_object, option, settings_of, unknown_keys
from train.memory_config import MemoryConfig
from train.subsets import Subset, read_subsets


@dataclass(frozen=True)
class ModelConfig:
    """The base model and how it reads a caption."""

    base: str = option("", "-m", help="Base model: pocket, a diffusers folder, a checkpoint file or a hub id; empty takes [project] base.")
    vae: str = option("", help="A VAE's file or diffusers folder that takes the place of the base's own.")
    prediction_type: str = option("", help="What the base predicts; empty = what it says of itself.", choices=("", "epsilon", "v_prediction"))
    clip_skip: int = option(1, help="Which text-encoder layer to read, counted from the last; 1 is the last.", min=1, max=12)
    max_token_length: int = option(75, help="Caption tokens that are kept.", choices=(75, 150, 225))


@dataclass(frozen=True)
class DataConfig:
    """The pictures, their captions, and how they become batches."""

    tree: Path = option(Path("tree"), help="Training tree with img/N_concept and reg/N_class, as `prep build` writes it.")
    keyword: str = option("", help="The concept word; empty takes [project] keyword.")
    class_: str = option("", help="What the concept is one of; empty takes [project] class.")
    resolution: int | None = option(None, help="Side of the square whose area a picture is scaled to; empty takes the base model's.", min=64)
    train_batch_size: int = option(1, "-b", help="Pictures per batch.", min=1)
    num_epochs: int = option(10, "-e", help="Times the whole tree is seen.", min=1)
    max_train_steps: int | None = option(None, help="Stop after this many steps, even before the last epoch.", min=1)
    keep_tokens: int = option(1, help="Leading tags that the shuffle leaves in place.", min=0)
    shuffle_caption: bool = option(True, help="Shuffle the tags of a caption each time it is used.")
    keep_tokens_separator: str = option("", help="Sign that ends the tags that stay in front, such as |||; a second one begins those that stay last.")
    secondary_separator: str = option("", help="Sign that becomes a comma after the shuffle, such as ;;; between tags that stay together.")
    caption_prefix: str = option("", help="Text in front of every caption.")
    caption_suffix: str = option("", help="Text behind every caption.")
    caption_dropout_rate: float = option(0.0, help="Share of samples trained with an empty caption.", min=0, max=1)
    caption_dropout_every_n_epochs: int = option(0, help="Train every so many epochs with empty captions; 0 never.", min=0)
    caption_tag_dropout_rate: float = option(
        0.0, help="Share of tags that are left out, each time anew; those kept in front never are.", min=0, max=1
    )
    token_warmup_min: int = option(1, help="Free tags that a caption begins with under token_warmup_step.", min=0)
    token_warmup_step: float = option(0.0, help="Step by which captions have grown to all their tags, under 1 a share of the run; 0 is off.", min=0)
    enable_wildcard: bool = option(False, help="Choose one of {a|b} in captions each time, and one of their lines.")
    weighted_captions: bool = option(False, help="Read (tag:1.2) and [tag] in captions as weights, as the web UIs do.")
    caption_variants: int = option(
        0, help="Wordings that are made of each caption, so that a frozen text encoder runs once; 0 makes new ones.", min=0
    )
    flip_aug: bool = option(False, help="Mirror pictures at random; not for asymmetric concepts.")
    random_crop: bool = option(False, help="Crop what does not fit the bucket at random instead of evenly on both sides.")
    color_aug: bool = option(False, help="Turn hue and brightness a little; not for concepts that have a colour.")
    augment_variants: int = option(4, help="Crops and colours that are encoded of each picture under random_crop and color_aug.", min=1)
    alpha_mask: bool = option(True, help="Transparency is a loss mask: parts that `prep marks` and others masked are not learned.")
    prior_loss_weight: float = option(1.0, help="Weight of a regularization picture's loss.", min=0)
    reg_use: str = option(
        "paired", help="Which regularization pictures an epoch uses: others each time, or always the first.", choices=("paired", "sd-scripts")
    )
    enable_bucket: bool = option(True, help="Group pictures by aspect ratio instead of cropping all to a square.")
    min_bucket_reso: int = option(256, help="Shortest side of a bucket in pixels.", min=64)
    max_bucket_reso: int = option(1024, help="Longest side of a bucket in pixels.", min=64)
    bucket_reso_steps: int = option(64, help="Bucket sides are multiples of this many pixels.", min=8)
    bucket_no_upscale: bool = option(False, help="Never enlarge a picture to fill its bucket.")
    cache_latents_to_disk: bool = option(True, help="Keep what was encoded in .atelier beside the tree; else in memory, for this run alone.")
    cache_text_encoder_outputs: bool = option(True, help="Encode captions once, if the text encoder is frozen and they do not vary without end.")
    cache_max: float = option(50.0, help="Gigabytes that .atelier may take; what was used longest ago goes first, and 0 is no limit.", min=0)
    cache_days: int = option(60, help="Days after which what was not used is deleted from .atelier; 0 keeps it.", min=0)
    subsets: tuple[Subset, ...] = ()  # the [[subset]] tables


@dataclass(frozen=True)
class NetworkConfig:
    """The adapter: its size and where it sits; or that there is none."""

    full: bool = option(False, help="Train the weights of the base themselves and save a whole checkpoint (full fine-tune, DreamBooth).")
    network_algo: str = option(
        "lora", help="Which adapter to train; all readers take lora, and docs/train.md says who takes the others.", choices="train.adapters:ADAPTERS"
    )
    network_args: str = option("", help='More of its settings, by spaces, such as "factor=8 dora_wd=true" of lokr.')
    network_dim: int = option(16, help="Rank of the LoRA matrices.", min=1)
    network_alpha: float = option(8.0, help="The LoRA's output is scaled by alpha / dim.", min=1e-3)
    conv_dim: int = option(0, help="Rank on the 3x3 convolutions, which also adds the residual blocks' other layers; 0 leaves them out.", min=0)
    conv_alpha: float | None = option(None, help="Alpha on the 3x3 convolutions; empty takes network_alpha.", min=1e-3)
    rs_lora: bool = option(False, help="Scale by alpha / sqrt(dim), so that a higher rank learns no slower.")
    train_unet: bool = option(True, help="Train the UNet's part.")
    train_text_encoder: bool = option(True, help="Train the text encoder's part.")
    network_dropout: float = option(0.0, help="Share of the values between down and up that are left out in a step.", min=0, max=0.99)
    rank_dropout: float = option(0.0, help="Share of the ranks that are left out in a step.", min=0, max=0.99)
    module_dropout: float = option(0.0, help="Share of the layers that are left out in a step.", min=0, max=0.99)
    block_dims: str = option("", help="Rank of each UNet block, 25 numbers (SDXL: 23); 0 leaves a block out.")
    block_alphas: str = option("", help="Alpha of each UNet block, as many numbers.")
    conv_block_dims: str = option("", help="Rank on the 3x3 convolutions of each UNet block.")
    conv_block_alphas: str = option("", help="Alpha on the 3x3 convolutions of each UNet block.")
    down_lr_weight: str = option("", help="Factor of unet_lr in each down block, 12 numbers (SDXL: 9) or a course such as cosine+.25.")
    mid_lr_weight: str = option("", help="Factor of unet_lr in the middle, 1 number (SDXL: 3).")
    up_lr_weight: str = option("", help="Factor of unet_lr in each up block, 12 numbers (SDXL: 9) or a course.")
    block_lr_zero_threshold: float = option(0.0, help="Blocks whose factor is not over this are left out.", min=0)
    network_reg_dims: str = option("", help='Rank by pattern of layer names, first match wins, such as "attn2=32 ff_net=8 te2=0"; 0 leaves out.')
    network_reg_lrs: str = option("", help='Learning rate by pattern of layer names, such as "lora_te2=1e-5 attn2_to_k=2e-4"; 0 leaves out.')
    loraplus_lr_ratio: float = option(1.0, help="LoRA+: the up half's rate over the down half's; 16 is usual, 1 is off.", min=1)
    loraplus_unet_lr_ratio: float | None = option(None, help="The same for the UNet's part alone.", min=1)
    loraplus_text_encoder_lr_ratio: float | None = option(None, help="The same for the text encoder's part alone.", min=1)
    scale_weight_norms: float = option(0.0, help="Scale a layer's update down to this norm after each step; 1 is usual, 0 is off.", min=0)
    network_weights: str = option("", help="A LoRA file to go on from.")
    dim_from_weights: bool = option(False, help="Take layers, ranks and alphas from network_weights too.")
    base_weights: str = option("", help="LoRA files, by |, that are merged into the base before training.")
    base_weights_multiplier: str = option("", help="How strongly each of base_weights is merged, numbers by commas; empty is 1.")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, its rates and their course over the run."""

    optimizer: str = option(
        "adamw",
        help="adamw, adamw8bit, pagedadamw8bit, lion, lion8bit, adafactor, prodigy, dadaptadam, dadaptlion, adamwschedulefree, "
        "radamschedulefree, sgdnesterov, or pytorch_optimizer:CLASS for one of that package.",
    )
    optimizer_args: str = option("", help='More of its arguments, by spaces, such as "weight_decay=0.1 betas=0.9,0.99".')
    learning_rate: float = option(1e-4, "--lr", help="Learning rate of every part that has none of its own.", min=0)
    unet_lr: float | None = option(None, help="Learning rate of the UNet's part.", min=0)
    text_encoder_lr: float | None = option(None, help="Learning rate of the text encoder's part.", min=0)
    scale_lr: bool = option(False, help="The linear rule: multiply the rates by the samples of a step (batches, gathered, on all processes).")
    lr_scheduler: str = option("cosine", help="Course of the learning rate.", choices="train.schedules:SCHEDULES")
    lr_warmup_ratio: float = option(0.05, help="Share of the optimizer steps over which the rate rises; constant has none.", min=0, max=1)
    lr_scheduler_num_cycles: int = option(1, help="Falls from full rate to 0 under cosine_with_restarts.", min=1)
    lr_scheduler_power: float = option(1.0, help="Exponent of the polynomial course.", min=0)
    max_grad_norm: float = option(1.0, help="Longer gradients are scaled down to this length; 0 leaves them.", min=0)
    gradient_accumulation_steps: int = option(1, help="Batches that make one step.", min=1)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the prediction is measured by."""

    loss_type: str = option("l2", help="How an error is measured.", choices="train.loss:LOSSES")
    huber_schedule: str = option("snr", help="What huber_c depends on under huber and smooth_l1.", choices="train.loss:HUBER_SCHEDULES")
    huber_c: float = option(0.1, help="Where huber and smooth_l1 turn linear on the noisiest latents.", min=1e-4, max=1)
    min_snr_gamma: float = option(0.0, help="Cap on the weight of nearly clean timesteps, 5 is usual; 0 is off.", min=0)
    debiased_estimation_loss: bool = option(False, help="Weigh timesteps so that noisy ones, which make the layout, count more.")
    normalize_masked_area_loss: bool = option(False, help="Let a masked picture count as much as a whole one.")
    noise_offset: float = option(0.0, help="Noise that shifts a whole channel, for darker and brighter pictures; 0 is off.", min=0)
    noise_offset_random_strength: bool = option(False, help="Draw each sample's offset between 0 and noise_offset.")
    adaptive_noise_scale: float = option(0.0, help="Add this much of a channel's own mean to noise_offset; may be negative.")
    multires_noise_iterations: int = option(0, help="Levels of pyramid noise, 6 to 10 are usual; 0 is off.", min=0, max=16)
    multires_noise_discount: float = option(0.3, help="How much weaker each level of pyramid noise is than the last.", min=0, max=1)
    ip_noise_gamma: float = option(0.0, help="Input perturbation: more noise than the model is told of, 0.1 is usual; 0 is off.", min=0)
    ip_noise_gamma_random_strength: bool = option(False, help="Draw each sample's perturbation between 0 and ip_noise_gamma.")
    zero_terminal_snr: bool | None = option(None, help="Train the last timestep on pure noise; not set = what the base says of itself.")
    min_timestep: int = option(0, help="Lowest timestep that is trained, 0 is clean.", min=0, max=999)
    max_timestep: int | None = option(None, help="Train timesteps below this one only; empty trains all.", min=1, max=1000)
    timestep_density: str = option("uniform", help="How often each timestep is trained.", choices="train.timesteps:DENSITIES")
    timestep_density_mean: float = option(0.0, help="Where logit_normal has its middle: under 0 cleaner, over 0 noisier.")
    timestep_density_scale: float = option(1.0, help="Width of logit_normal, weight of heavy_tail (-1 to 1.75), exponent of power.", min=-1)


@dataclass(frozen=True)
class ValidationConfig:
    """How a run is judged: by pictures that it does not train."""

    validation_split: float = option(0.1, help="Share of the pictures that judge the run and are not trained; none of under 20.", min=0, max=0.5)
    validate_every_n_epochs: int = option(0, help="Judge every so many epochs; 0 = so often that it takes an eighth of the time at most.", min=0)
    validate_every_n_steps: int = option(0, help="Judge every so many steps instead; 0 = by epochs.", min=0)
    validation_folds: int = option(0, help="For few pictures: runs, each without another part, that find the best epoch; 0 is off.", min=0, max=20)
    patience: int = option(0, help="Stop after so many judgements in a row that are no better than the best; 0 trains to the end.", min=0)
    validation_tagger: str = option("", "--tagger", help="A tagger that judges sample pictures as well, as `prep tag` names it; empty is off.")
    keep_best: bool = option(True, help="Make the best epoch NAME.safetensors, and the last NAME-last; else the last is NAME.safetensors.")


@dataclass(frozen=True)
class OutputConfig:
    """What is written, where, in which precision, and the run's seed."""

    output_dir: Path = option(Path("lora"), "-o", help="Folder for the LoRA, its state, log and sample pictures.")
    output_name: str = option("", "-n", help="Name of the LoRA; empty takes [project] name.")
    save_precision: str = option("fp16", help="Precision of the saved weights.", choices=("fp16", "bf16", "fp32"))
    save_format: str = option("kohya", "--format", help="Layout of the saved file; kohya is what all tools read.", choices=("kohya", "diffusers"))
    mixed_precision: str = option("auto", help="Precision of the computation.", choices=("auto", "no", "fp16", "bf16"))
    compile: str = option(
        "auto",
        help="Compile the model's blocks: auto = on an NVIDIA GPU, where a measurement says that it pays; max = always, as fast as torch can.",
        choices=("auto", "off", "max"),
    )
    gradient_checkpointing: bool = option(False, help="Compute layers again in the backward pass instead of keeping what they gave: less memory.")
    seed: int = option(42, help="Seed of all randomness.", min=0)
    save_state_every_n_steps: int = option(50, help="Steps between saved states, from which a stopped run goes on; 0 saves none.", min=0)
    save_every_n_epochs: int = option(0, help="Also keep the LoRA of every so many epochs; 0 keeps the last only.", min=0)
    save_every_n_steps: int = option(0, help="Also keep the LoRA of every so many steps; 0 keeps none.", min=0)
    save_last_n: int = option(0, help="Of the LoRAs kept on the way, keep only the last so many; 0 keeps all.", min=0)
    ema_decay: float = option(0.0, help="Save the running mean of the weights, 0.999 is usual; 0 is off.", min=0, max=0.99999)
    report_pictures: bool = option(True, help="At the end measure training pictures one by one, for the report.")
    log_with: str = option("", help="Also log to TensorBoard or W&B, into the output folder.", choices=("", "tensorboard", "wandb"))
    log_tracker_name: str = option("lora", help="Project of W&B that the run is shown in; WANDB_MODE=offline keeps it here.")
    sample_prompts: str = option("", help="Prompts of the sample pictures, by |, or a .txt file of them; empty takes keyword and class.")
    sample_every_n_epochs: int = option(0, help="Also draw sample pictures every so many epochs; 0 draws at the end only.", min=0)
    sample_every_n_steps: int = option(0, help="Also draw sample pictures every so many steps.", min=0)
    sample_steps: int = option(25, help="Denoising steps of a sample picture; 0 draws none.", min=0)
    guidance_scale: float = option(5.0, help="How strictly a sample picture follows its prompt.", min=0)

    def file(self, ending: str) -> Path:
        """Return the path of one of the run's files, such as ".safetensors" or "-state.pt"."""
        return self.output_dir / f"{self.output_name}{ending}"


@dataclass(frozen=True)
class TrainConfig:
    """The whole run's settings; below train.step a part receives only its own section."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)

    @classmethod
    def load(cls, settings: Mapping[str, Any], given: Mapping[str, Any]) -> TrainConfig:
        """Read the parsed dataset.toml and what was typed on the command line; raises one UserError with all faults."""
        project, table, faults = settings.get("project", {}), settings.get("train", {}), []
        for name, found in (("project", project), ("train", table)):
            if not isinstance(found, Mapping):
                raise UserError(f"{name} = {found!r} is not a table; write it as [{name}] with its settings below")
        tables = [("[project]", _inherited(project)), ("[train]", table)]
        sections: dict[str, Any] = {}
        for name, section in SECTIONS.items():
            fields = {setting.field for setting in settings_of(section)}
            try:
                sections[name] = build(section, tables, {key: value for key, value in given.items() if key in fields})
            except UserError as error:
                faults.append(str(error))
                sections[name] = section()  # stands in, so that the faults of the other sections are found as well
        try:
            sections["data"] = dataclasses.replace(sections["data"], subsets=read_subsets(settings.get("subset", []), DataConfig))
        except UserError as error:
            faults.append(str(error))
        faults += unknown_keys("[train]", table, known_keys())
        config = _filled(cls(**sections))
        faults += _conflicts(config)
        if faults:
            raise UserError("; ".join(faults))
        return config

    def at(self, root: Path) -> TrainConfig:
        """Return the same settings with tree, output folder and a base folder found from the project folder."""

        def found(value: str) -> str:  # a hub id, or a prompt, names nothing here and stays as it is
            return str(root / value) if value and len(value) < LONGEST_PATH and (root / value).exists() else value

        return dataclasses.replace(
            self,
            model=dataclasses.replace(self.model, base=found(self.model.base), vae=found(self.model.vae)),
            network=dataclasses.replace(
                self.network,
                network_weights=found(self.network.network_weights),
                base_weights="|".join(found(path.strip()) for path in self.network.base_weights.split("|")),
            ),
            data=dataclasses.replace(self.data, tree=root / self.data.tree),
            output=dataclasses.replace(self.output, output_dir=root / self.output.output_dir, sample_prompts=found(self.output.sample_prompts)),
        )

    def flat(self) -> dict[str, str | int | float | bool | None]:
        """List all settings under their TOML names, in plain types."""
        pairs = ((s.key, getattr(getattr(self, name), s.field)) for name, cls in SECTIONS.items() for s in settings_of(cls))
        return {key: str(value) if isinstance(value, Path) else value for key, value in pairs}


LONGEST_PATH = 1024  # a longer text is no path


SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "network": NetworkConfig,
    "optimizer": OptimizerConfig,
    "objective": ObjectiveConfig,
    "validation": ValidationConfig,
    "output": OutputConfig,
    "memory": MemoryConfig,
}

# Settings that change neither the weights nor their order: a stopped run may go on with others.
FREE = frozenset(
    {
        "base",
        "tree",
        "keyword",
        "class",
        "output_dir",
        "output_name",
        "network_weights",  # its content is part of the fingerprint, and that of the others changes the base's
        "base_weights",
        "cache_latents_to_disk",
        "cache_max",
        "cache_days",
        "save_precision",
        "save_format",
        "save_state_every_n_steps",
        "save_every_n_epochs",
        "save_every_n_steps",
        "save_last_n",
        "report_pictures",
        "compile",
        "gradient_checkpointing",
        "blocks_to_swap",
        "fit",
        "memory_limit",
        "log_with",
        "log_tracker_name",
        "sample_every_n_epochs",
        "sample_every_n_steps",
        "sample_prompts",
        "sample_steps",
        "guidance_scale",
    }
)

# What [project] says once for all commands, and the setting of the run that it fills.
INHERITED = {"base": "base", "keyword": "keyword", "class": "class", "name": "output_name", "tree": "tree"}


def known_keys() -> list[str]:
    """List every key that [train] may hold."""
    return [setting.key for section in SECTIONS.values() for setting in settings_of(section)]


def _inherited(project: Mapping[str, Any]) -> dict[str, Any]:
    return {key: project[name] for name, key in INHERITED.items() if project.get(name, "") != ""}


def _filled(config: TrainConfig) -> TrainConfig:
    """Fill what neither table says: the embedded base, as everywhere in the project, and a name for the file."""
    name = config.output.output_name or config.data.keyword or "lora"
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, base=config.model.base or "pocket"),
        output=dataclasses.replace(config.output, output_name=name),
    )


def _conflicts(config: TrainConfig) -> list[str]:
    """Say which settings cannot stand together."""
    conflicts_of_training = load_object("train.conflicts:conflicts_of_training")  # by string, as the tables: the parts of a run import this file
    conflicts_of_network = load_object("train.adapters.settings:conflicts_of_network")
    conflicts_of_data = load_object("train.wording:conflicts_of_data")
    data, network, name = config.data, config.network, config.output.output_name
    checks = [
        (not (network.train_unet or network.train_text_encoder), "train_unet and train_text_encoder are both false; switch one on"),
        (data.min_bucket_reso > data.max_bucket_reso, "min_bucket_reso is over max_bucket_reso; swap them"),
        (bool(data.bucket_reso_steps % 8), "bucket_reso_steps must be a multiple of 8, the pixels of one latent; use 64"),
        (config.validation.validation_folds == 1, "validation_folds = 1 leaves out every picture; give 2 or more, or 0"),
        (Path(name).name != name, f"output_name {name!r} is not a plain file name; leave out folders"),
    ]
    return [
        sentence for wrong, sentence in (*checks, *conflicts_of_data(data), *conflicts_of_network(network), *conflicts_of_training(config)) if wrong
    ]
