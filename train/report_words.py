"""The words of a run's charts and figures in Russian, by the English ones that the report is written with; `train watch` says them."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], str]  # from English words, with their {places}, to what is shown

RUSSIAN = {
    "Training loss": "Потери при обучении",
    "loss": "потери",
    "of a step": "шага",
    "running mean": "скользящее среднее",
    "Held-out loss and its 95 % band": "Потери на отложенных картинках, полоса 95 %",
    "share of the base's loss": "доля потерь базовой модели",
    "held out": "отложенные",
    "base model": "базовая модель",
    "Learned, needs keyword, bleed": "Выучено, нужно ключевое слово, утечка",
    "learned": "выучено",
    "needs keyword": "нужно ключевое слово",
    "bleed": "утечка",
    "Learning rate": "Скорость обучения",
    "rate": "скорость",
    "UNet": "UNet",
    "text encoder": "кодировщик текста",
    "text encoder 1": "кодировщик текста 1",
    "text encoder 2": "кодировщик текста 2",
    "Gradient norm": "Норма градиента",
    "norm": "норма",
    "before it is cut to max_grad_norm": "до ограничения по max_grad_norm",
    "logarithmic": "логарифмическая шкала",
    "as numbers": "числами",
    "step": "шаг",
    "epoch": "эпоха",
    "steps": "шаги",
    "epochs": "эпохи",
    "of {count}": "из {count}",
    "{count} steps": "шагов: {count}",
    "mean loss at the end": "средние потери в конце",
    "held-out loss, share of the base's": "потери на отложенных, доля базовых",
    "time in steps": "время шагов",
    "best, epoch {epoch}": "лучшая, эпоха {epoch}",
    "the best is epoch {epoch} (step {step})": "лучшая эпоха — {epoch} (шаг {step})",
    "the best so far is epoch {epoch} (step {step})": "лучшая эпоха пока — {epoch} (шаг {step})",
    "no pictures were held out, so it was not judged": "картинок не откладывали, поэтому оценки нет",
    "running": "идёт",
    "finished": "закончено",
    "{name} from {first} to {last}, lowest {low} at step {at_low}, highest {high} at step {at_high}": (
        "{name} от {first} до {last}, наименьшее {low} на шаге {at_low}, наибольшее {high} на шаге {at_high}"
    ),
    "Those that differ from the defaults.": "Те, что отличаются от значений по умолчанию.",
    "all {count} settings": "все настройки: {count}",
}
SAYS: dict[str, Say] = {"en": str, "ru": lambda words: RUSSIAN.get(words, words)}
