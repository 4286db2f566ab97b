"""How much faster an epoch is on cached features than with lr = 0, as ratios within one run.

Run it with ``python benchmarks/cached_features.py``; it prints JSON. ResNet18, lr = 0 for all but its head
beside the head alone on features computed once: the 20 digits of 32×32 of lesson 04, and 48 images of
224×224 in batches of 16. The time to compute the features is given in epochs of the first.
"""

from __future__ import annotations

import statistics
import time

import torch
from measuring import show

from layerlab.data import Images
from layerlab.data.digits import target
from layerlab.experiments.digits import resnet18
from layerlab.experiments.settings import Recipe
from layerlab.experiments.transfer import Transfer


def compare(images: Images, batch_size: int, epochs: int) -> dict[str, object]:
    """Train a head both ways on these images."""
    recipe = Recipe(epochs=epochs, batch_size=batch_size, lr=0.01, test_every=epochs + 1)
    heads: list[torch.Tensor] = []
    medians: list[float] = []
    computing = 0.0
    for cached in (False, True):
        model = resnet18(2, seed=0)
        began = time.perf_counter()
        work = Transfer(
            "frozen" if cached else "lr_zero", model, images, images.take([0, 1]), recipe, cached=cached
        )
        computing = time.perf_counter() - began
        work.run.test = None
        medians.append(statistics.median(epoch.seconds for epoch in work.epochs()))
        work.close()
        heads.append(model.get_parameter("fc.weight").detach())
    return {
        "images": len(images),
        "epoch_with_lr_zero_s": round(medians[0], 4),
        "times_faster_on_cached_features": round(medians[0] / medians[1], 1),
        "computing_them_costs_epochs": round(computing / medians[0], 2),
        "same_head_bit_by_bit": torch.equal(*heads),
    }


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    digits, _ = target(2, 0)
    large = Images(
        torch.randint(0, 255, (48, 3, 224, 224)).to(torch.uint8), torch.arange(48) % 2, ("a", "b"), "noise"
    )
    found = {}
    torch.set_num_threads(1)
    found["digits, one thread"] = compare(digits, 20, 9)
    torch.set_num_threads(2)
    found["224 pixels, two threads"] = compare(large, 16, 5)
    show(found)


if __name__ == "__main__":
    main()
