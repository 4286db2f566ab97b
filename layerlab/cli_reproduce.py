"""The command ``layerlab reproduce``: the five settings of lesson 04 at full size, on ants and bees."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from layerlab.experiments.outcome import Outcome
    from layerlab.experiments.reproduce import Row
    from layerlab.training import Epoch

ABOUT = """\
Train a ResNet on ants and bees as "7.2 模型 Finetune" does: 224 pixels, batches of 16, SGD with lr 0.001 and
momentum 0.9, a tenth of it after every 7 epochs, 25 epochs. Results are written to NAME.json as each setting
ends, and ants-bees.png shows all that lie there. Stop it when you like: the same command goes on after the
last epoch that was finished. Images and weights are taken from the folder that LAYERLAB_DATA names, else
downloaded once."""


_OF_INSECTS: Final[dict[str, Any]] = {
    "settings": [],
    "architecture": "resnet18",
    "weights": "imagenet",
    "seed": None,
    "epochs": 25,
    "side": 224,
    "device": None,
}
"""What chooses among the runs on ants and bees, and its default."""


def add_reproduce(commands: Any) -> None:
    """Add the command's line to the parser of ``layerlab``."""
    parser = commands.add_parser(
        "reproduce",
        help="train the five settings of lesson 04 on ants and bees",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="SETTING",
        help="which ones: scratch, fine_tune, frozen, lr_zero, lr_tenth (default: all)",
    )
    parser.add_argument("--architecture", help="resnet18 or resnet50 (default: %(default)s)")
    parser.add_argument("--weights", help="imagenet, or imagenet-without-layer4 (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, action="append", metavar="N", help="may be given several times (default: 1)"
    )
    parser.add_argument("--epochs", type=int, help="default: %(default)s, as the document has it")
    parser.add_argument("--side", type=int, help="pixels of an image's side (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the best there is)")
    parser.add_argument(
        "--digits",
        action="store_true",
        help="instead: the embedded task, five seeds of every setting, depth and number of images "
        "(on one thread; some ten minutes)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help="default: %(default)s"
    )
    parser.set_defaults(**_OF_INSECTS)


def run_reproduce(chosen: argparse.Namespace) -> int:
    """Train what was chosen; returns the exit status."""
    try:
        _check(chosen)
        return _digits(chosen.out) if chosen.digits else _ants_and_bees(chosen)
    except KeyboardInterrupt:
        after = "the last run above" if chosen.digits else "the last epoch that was finished"
        print(f"\nstopped; the same command goes on after {after}", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"layerlab reproduce: {error}", file=sys.stderr)
        return 1


def _check(chosen: argparse.Namespace) -> None:
    """Refuse what would fail late, or be passed over.

    Raises
    ------
    ValueError
        The message names it.
    """
    if chosen.digits:
        for name, usual in _OF_INSECTS.items():
            if getattr(chosen, name) != usual:
                what = "SETTING" if name == "settings" else f"--{name}"
                raise ValueError(f"--digits trains all there is and takes only --out: leave {what} out")
    else:
        from layerlab.experiments.reproduce import rows

        rows(chosen.settings, chosen.architecture, chosen.weights, side=chosen.side, epochs=chosen.epochs)
    if chosen.device is not None:
        import torch

        if chosen.device.partition(":")[0] not in ("cpu", "cuda", "mps"):
            raise ValueError(f"--device {chosen.device}: choose cpu, cuda or mps")
        try:
            torch.empty(0, device=chosen.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"--device {chosen.device}: {str(error).splitlines()[0]}") from error
    try:
        chosen.out.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=chosen.out):
            pass
    except OSError as error:
        raise ValueError(f"--out {chosen.out} is no folder that can be written: {error.strerror}") from error


def _digits(folder: Path) -> int:
    from tqdm import tqdm

    from layerlab.experiments.digits_sweep import SEEDS, sweep, trials

    path = folder / "digits.json"
    with tqdm(total=sum(len(trials(seed)) for seed in SEEDS), unit="run", disable=None) as bar:
        for key in sweep(path, say=bar.write):
            bar.set_description(key)
            bar.update()
    print(f"all there: {path}")
    return 0


def _ants_and_bees(chosen: argparse.Namespace) -> int:
    from tqdm import tqdm

    from layerlab.experiments.reproduce import Row, reproduce, rows
    from layerlab.experiments.settings import SETTINGS

    done: list[tuple[Row, Outcome]] = []
    wanted = rows(
        chosen.settings or tuple(SETTINGS),
        chosen.architecture,
        chosen.weights,
        chosen.seed or (1,),
        side=chosen.side,
        epochs=chosen.epochs,
    )
    with tqdm(total=sum(row.recipe.epochs for row in wanted), unit="epoch", disable=None) as bar:

        def after_epoch(row: Row, epoch: Epoch) -> None:
            bar.set_description(f"{row.setting}, epoch {epoch.number}: {_percent(epoch.test_accuracy)}")
            bar.n = row.recipe.epochs * len(done) + epoch.number
            bar.refresh()

        outcomes = reproduce(wanted, chosen.out, device=chosen.device, say=bar.write, after_epoch=after_epoch)
        for row, outcome in outcomes:
            done.append((row, outcome))
            bar.write(f"{row.name}: {_percent(outcome.accuracy)}, best {_percent(outcome.best)}")
            if row == Row(row.setting, row.architecture, row.weights, row.seed):
                _draw(chosen.out)
    print(table(done))
    return 0


def _draw(folder: Path) -> None:
    from layerlab.data.writing import whole
    from layerlab.lessons_support.full_size import full_size_chart

    with whole(folder / "ants-bees.png") as part:
        part.write_bytes(full_size_chart(folder)._repr_png_())


def table(done: list[tuple[Row, Outcome]]) -> str:
    """The results, a line a setting, beside what the document prints."""
    lines = [("setting", "seed", "last", "best", "s/epoch", "document")]
    for row, outcome in done:
        seconds = sorted(epoch.seconds for epoch in outcome.epochs)[len(outcome.epochs) // 2]
        lines.append(
            (
                f"{row.architecture} {row.setting}",
                str(row.seed),
                _percent(outcome.accuracy),
                _percent(outcome.best),
                f"{seconds:.2g}",
                _percent(row.document),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"
