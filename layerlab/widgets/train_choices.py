"""What a `TrainLab` offers to choose from, and what is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from layerlab.experiments.settings import SETTINGS, Setting
from layerlab.printable import printable
from layerlab.show.words import short

NAMES: Final[dict[Setting, str]] = {
    "scratch": "from scratch",
    "fine_tune": "fine-tune",
    "frozen": "frozen",
    "lr_zero": "lr = 0",
    "lr_tenth": "lr / 10",
}
"""Short names of the settings, for menus and the ends of lines."""

WORDS: Final[dict[Setting, str]] = {
    **SETTINGS,
    "frozen": "pretrained, requires_grad=False up to a layer",
    "lr_zero": "pretrained, lr = 0 up to a layer",
}
"""What each does, where the layer can be chosen."""

FREEZING: Final[tuple[Setting, ...]] = ("frozen", "lr_zero")
"""The settings that hold layers still."""


@dataclass(frozen=True)
class Choice:
    """What a run is started with."""

    setting: Setting
    frozen_up_to: str | None
    lr: float
    per_class: int
    seed: int


class Choices:
    """The values of each menu. What is chosen are positions in them: a dict, as the page has it.

    Raises
    ------
    ValueError
        There is nothing to choose from (but no layers are all right), something twice, or a setting that
        there is not.
    """

    def __init__(self, offered: Mapping[str, Sequence[Any]]) -> None:
        self.offered = {name: list(values) for name, values in offered.items()}
        for name, values in self.offered.items():
            if not values and name != "frozen_up_to":
                raise ValueError(f"{name}: there is nothing to choose from")
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"{name}: {twice!r} stands there twice")
        unknown = [setting for setting in self.offered["setting"] if setting not in SETTINGS]
        if unknown:
            raise ValueError(f"setting={unknown[0]!r}: choose from {', '.join(SETTINGS)}")

    def at_first(self) -> dict[str, int]:
        """The first of each menu; the whole backbone; of learning rates and images the one in the middle."""
        last = {name: max(0, len(values) - 1) for name, values in self.offered.items()}
        middle = {name: last[name] // 2 for name in ("lr", "per_class")}
        return {**dict.fromkeys(self.offered, 0), "frozen_up_to": last["frozen_up_to"], **middle}

    def chosen(self, picks: Mapping[str, int]) -> Choice:
        """The values that are chosen."""
        values = {name: these[picks[name]] for name, these in self.offered.items() if these}
        freezes = values["setting"] in FREEZING
        return Choice(**{**values, "frozen_up_to": values.get("frozen_up_to") if freezes else None})

    def values(self, name: str, at: int) -> dict[str, Any]:
        """The value at a position of a menu, by the menu's name."""
        return {name: self.offered[name][at]}

    def after(self, picks: Mapping[str, int], values: Mapping[str, Any]) -> dict[str, int]:
        """What is chosen once these menus have been set to these values.

        Raises
        ------
        ValueError
            There is no such menu or value; or a layer to freeze up to, and a setting that freezes nothing.
        """
        found = dict(picks)
        for name, value in values.items():
            if name not in self.offered:
                raise ValueError(f"no choice {name!r}; the choices are {', '.join(self.offered)}")
            if value not in self.offered[name]:
                known = ", ".join(map(repr, self.offered[name])) or "nothing: there are no layers"
                raise ValueError(f"{name}={value!r}: it can be {known}")
            found[name] = self.offered[name].index(value)
        setting = self.offered["setting"][found["setting"]]
        if "frozen_up_to" in values and setting not in FREEZING:
            raise ValueError(f"frozen_up_to={values['frozen_up_to']!r}: setting={setting!r} freezes nothing")
        return found

    def menus(self, each: str) -> list[dict[str, Any]]:
        """What the page draws of each menu."""
        settings, layers = (
            self.offered["setting"],
            [printable(layer) for layer in self.offered["frozen_up_to"]],
        )
        if layers:
            layers[-1] += " (the whole backbone)"
        labels = {
            "setting": ("setting", [f"{NAMES[one]}: {WORDS[one]}" for one in settings]),
            "frozen_up_to": ("frozen up to", layers),
            "lr": ("head's learning rate", [short(lr) for lr in self.offered["lr"]]),
            "per_class": (f"labelled images of each {printable(each)}", map(str, self.offered["per_class"])),
            "seed": ("seed", map(str, self.offered["seed"])),
        }
        freezes = [at for at, one in enumerate(settings) if one in FREEZING]
        return [
            {
                "name": name,
                "label": label,
                "options": list(options),
                "only_for": freezes if name == "frozen_up_to" else None,
            }
            for name, (label, options) in labels.items()
            if self.offered[name]
        ]
