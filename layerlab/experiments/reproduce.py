"""The document's own protocol at full size: ants and bees, 25 epochs, a file of results for each setting.

"7.2 模型 Finetune" (PyTorch 学习笔记) prints 70.59 % for a ResNet18 from scratch and 96.08 % for one that is
fine-tuned from ImageNet, and leaves three settings without a result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch

from layerlab.data import Images, ants_and_bees, backbone, recalibrate_batchnorm
from layerlab.data.backbones import Weights
from layerlab.data.writing import whole
from layerlab.experiments.outcome import Outcome
from layerlab.experiments.settings import DOCUMENT, SETTINGS, Recipe, Setting
from layerlab.experiments.transfer import transfer
from layerlab.training import Epoch, best_device

Architecture = Literal["resnet18", "resnet50"]

DOCUMENT_SAYS: Final = {"scratch": 108 / 153, "fine_tune": 147 / 153}
"""What the document prints, 70.59 % and 96.08 %: so many of 153 validation images."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    weights
        What all settings but ``scratch`` start from; see `layerlab.data.backbone`.
    seed
        Of the head, of random weights, and of the order of training.
    side
        Pixels of an image's side.
    """

    setting: Setting
    architecture: Architecture = "resnet18"
    weights: Weights = "imagenet"
    seed: int = 1
    side: int = 224
    recipe: Recipe = DOCUMENT

    @property
    def document(self) -> float | None:
        """What the document prints for it, from 0 to 1; None where it prints nothing."""
        same = self.architecture == "resnet18" and (self.setting == "scratch" or self.weights == "imagenet")
        return DOCUMENT_SAYS.get(self.setting) if same else None

    @property
    def name(self) -> str:
        """What its files are called."""
        weights = "" if self.setting == "scratch" else f"-{self.weights}"
        size = f"-{self.side}px" if self.side != 224 else ""
        epochs = f"-{self.recipe.epochs}epochs" if self.recipe != DOCUMENT else ""
        return f"ants-bees-{self.architecture}{weights}-{self.setting}{size}{epochs}-seed{self.seed}"


def rows(
    settings: Sequence[str] = tuple(SETTINGS),
    architecture: str = "resnet18",
    weights: str = "imagenet",
    seeds: Sequence[int] = (1,),
    *,
    side: int = 224,
    epochs: int = DOCUMENT.epochs,
) -> list[Row]:
    """The rows for these choices.

    Raises
    ------
    ValueError
        A choice that there is not; the message names those that there are.
    """
    for what, given, known in (
        *(("setting", setting, tuple(SETTINGS)) for setting in settings),
        ("architecture", architecture, get_args(Architecture)),
        ("weights", weights, get_args(Weights)),
    ):
        if given not in known:
            raise ValueError(f"{what} {given!r}: choose from {', '.join(known)}")
    for what, number, least in (("epochs", epochs, 1), ("side", side, 32)):
        if number < least:
            raise ValueError(f"{what} {number}: it must be at least {least}")
    recipe = DOCUMENT if epochs == DOCUMENT.epochs else replace(DOCUMENT, epochs=epochs)
    start: Any = {"architecture": architecture, "weights": weights, "side": side, "recipe": recipe}
    checked: Any = settings
    return [Row(setting, seed=seed, **start) for seed in seeds for setting in checked]


def reproduce(
    wanted: Sequence[Row],
    folder: Path,
    *,
    device: torch.device | str | None = None,
    say: Callable[[str], None] = print,
    after_epoch: Callable[[Row, Epoch], None] | None = None,
) -> Iterator[tuple[Row, Outcome]]:
    """Train row after row, and write each one's results as it ends.

    A row whose file of results is there already is read, not trained again. A row that was cut off goes on
    after the last epoch that it finished.

    Parameters
    ----------
    folder
        Gets ``NAME.json`` for each row; what is under way is kept in ``unfinished/NAME.pt``.
    device
        By default the best there is.
    say
        Told, in words, what happens.

    Yields
    ------
    Row, Outcome

    Raises
    ------
    layerlab.data.DataError
        Images or weights cannot be had.
    ValueError
        A file of results or an unfinished run is there under that name, but of other settings.
    """
    device = device if device is not None else best_device()
    data: dict[int, tuple[Images, Images]] = {}
    for row in wanted:
        path = folder / f"{row.name}.json"
        if path.exists():
            outcome = read(path)
            _check(path, row, outcome)
            say(f"{row.name}: done before, {path} is there")
            yield row, outcome
            continue
        if row.side not in data:
            data[row.side] = ants_and_bees(side=row.side)
        train, test = data[row.side]
        say(f"{row.name}: {row.recipe.epochs} epochs")
        outcome = _train(row, train, test, folder / "unfinished" / f"{row.name}.pt", device, after_epoch)
        write(path, outcome)
        (folder / "unfinished" / f"{row.name}.pt").unlink(missing_ok=True)
        yield row, outcome


def _train(
    row: Row,
    train: Images,
    test: Images,
    save_to: Path,
    device: torch.device | str,
    after_epoch: Callable[[Row, Epoch], None] | None,
) -> Outcome:
    start = backbone(row.architecture, None if row.setting == "scratch" else row.weights, seed=row.seed)
    about = {
        "data": f"{train.came_from}; {test.came_from}",
        "weights": start.came_from,
        "architecture": row.architecture,
        "side": row.side,
    }
    model = start.model.to(device)
    if start.missing:
        recalibrate_batchnorm(model, train.to(device))
    return transfer(
        row.setting,
        model,
        train.to(device),
        test.to(device),
        row.recipe,
        seed=row.seed,
        cached=row.setting == "frozen",
        device=device,
        save_to=save_to,
        about=about,
        after_epoch=(lambda epoch: after_epoch(row, epoch)) if after_epoch is not None else None,
    )


def _check(path: Path, row: Row, outcome: Outcome) -> None:
    told = outcome.about
    for what, here in (
        ("setting", row.setting),
        ("architecture", row.architecture),
        ("seed", row.seed),
        ("side", row.side),
        ("recipe", asdict(row.recipe)),
    ):
        if told.get(what) != here:
            raise ValueError(
                f"{path} holds other results: {what} {told.get(what)!r}, not {here!r}; move it away"
            )


def write(path: Path, outcome: Outcome) -> None:
    """Write results, whole or not at all."""
    text = json.dumps(_rounded(outcome.as_dict()), indent=1, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Outcome:
    """Read what `write` wrote.

    Raises
    ------
    ValueError
        It is no such file.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        epochs = [Epoch(**{**epoch, "lrs": tuple(epoch["lrs"])}) for epoch in told["epochs"]]
        return Outcome(told["about"], told["made_with"], tuple(epochs))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no results of this kind; move it away to have them made") from error


def _rounded(told: dict[str, Any]) -> dict[str, Any]:
    """Six digits of every measured figure, two decimals of a second."""
    for epoch in told["epochs"]:
        for key, value in epoch.items():
            if isinstance(value, float):
                epoch[key] = round(value, 2) if key == "seconds" else float(f"{value:.6g}")
    return told
