"""Settings of objective and optimizer that cannot stand together: said before anything is loaded, and the usual ones pass."""

import pytest

from prep.options import UserError
from train.config import TrainConfig
from train.optimizers import OPTIMIZERS

FREE_OF_SCHEDULE = {"lr_scheduler": "constant_with_warmup"}
ADAPTIVE = {"learning_rate": 1.0}


def load(**table: object) -> TrainConfig:
    return TrainConfig.load({"train": table}, {})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"min_snr_gamma": 5, "debiased_estimation_loss": True}, "both weigh timesteps"),
        ({"noise_offset": 0.1, "multires_noise_iterations": 6}, "both add coarse noise"),
        ({"adaptive_noise_scale": 0.1}, "noise_offset, which is 0"),
        ({"noise_offset_random_strength": True}, "noise_offset, which is 0"),
        ({"ip_noise_gamma_random_strength": True}, "ip_noise_gamma, which is 0"),
        ({"min_timestep": 500, "max_timestep": 500}, "min_timestep is not below max_timestep"),
        ({"timestep_density": "heavy_tail", "timestep_density_scale": 1.8}, "heavy_tail takes -1 to 1.75"),
        ({"timestep_density": "logit_normal", "timestep_density_scale": 0}, "logit_normal takes 0.001"),
        ({"timestep_density": "normal"}, "timestep_density"),
        ({"loss_type": "l3"}, "loss_type"),
        ({"optimizer": "adamv"}, "there is no optimizer 'adamv', did you mean adamw"),
        ({"optimizer": "AdamW8Bit"}, "did you mean adamw8bit"),
        ({"optimizer": "quite_else"}, "take one of adamw, .* or pytorch_optimizer:CLASS"),
        ({"optimizer": "pytorch_optimizer:"}, "there is no optimizer"),
        ({"optimizer_args": "betas"}, "optimizer_args holds 'betas'"),
        ({"optimizer": "prodigy"}, "prodigy finds the rate by itself .* 0.0001; set learning_rate = 1"),
        ({"optimizer": "prodigy", **ADAPTIVE, "unet_lr": 0.5}, "one rate for all parts"),
        ({"optimizer": "dadaptadam", **ADAPTIVE, "scale_lr": True}, "set scale_lr = false"),
        ({"optimizer": "adamwschedulefree"}, 'set lr_scheduler = "constant_with_warmup"'),
        ({"optimizer": "adamwschedulefree", **FREE_OF_SCHEDULE, "ema_decay": 0.99}, "set ema_decay = 0"),
    ],
)
def test_each_is_said_in_a_sentence(table: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(**table)


def test_they_come_all_at_once() -> None:
    with pytest.raises(UserError) as error:
        load(optimizer="prodigy", optimizer_args="eps", min_snr_gamma=5, debiased_estimation_loss=True)
    assert all(word in str(error.value) for word in ("set learning_rate = 1", "optimizer_args holds", "both weigh"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_row_has_settings_that_pass(name: str) -> None:
    row = OPTIMIZERS[name]
    more = {**(ADAPTIVE if row.finds_rate else {}), **(FREE_OF_SCHEDULE if row.schedule_free else {})}
    assert load(optimizer=name, **more).optimizer.optimizer == name


def test_an_adaptive_optimizer_may_leave_a_part_still() -> None:
    assert load(optimizer="prodigy", **ADAPTIVE, text_encoder_lr=0.0).optimizer.text_encoder_lr == 0


def test_the_help_of_the_setting_lists_every_row() -> None:
    fields = TrainConfig().optimizer.__dataclass_fields__
    assert all(name in fields["optimizer"].metadata["help"] for name in OPTIMIZERS)
