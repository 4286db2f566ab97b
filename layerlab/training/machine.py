"""What a run is computed on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def best_device() -> torch.device:
    """A CUDA GPU if there is one, else Apple's (MPS), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def hardware(device: torch.device | str = "cpu") -> str:
    """Say in a few words what computes there: ``"CPU, 2 threads"``, or the GPU's name."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU (MPS)"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"


@contextmanager
def repeatable() -> Iterator[None]:
    """Have cuDNN choose algorithms that give the same bits in every run, while in this block."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


class Chance:
    """A stream of random numbers of its own: in a block of it PyTorch draws from this stream.

    Each block goes on where the last one ended, and puts back what was there: code between two of them draws
    as if there were none.

    Parameters
    ----------
    seed
        Of the CPU's and of every GPU's generator.
    """

    def __init__(self, seed: int) -> None:
        self._outside: list[Tensor] = []
        with self:
            torch.manual_seed(seed)

    def __enter__(self) -> Chance:
        inside, self._outside = self._outside, _random_state()
        if inside:
            _set_random_state(inside)
        return self

    def __exit__(self, *_: object) -> None:
        inside = _random_state()
        _set_random_state(self._outside)
        self._outside = inside


def _random_state() -> list[Tensor]:
    state = [torch.get_rng_state()]
    if torch.cuda.is_available():
        state += torch.cuda.get_rng_state_all()
    elif torch.backends.mps.is_available():
        state += [torch.mps.get_rng_state()]
    return state


def _set_random_state(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state[1:])
    elif torch.backends.mps.is_available():
        torch.mps.set_rng_state(state[1])


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads while in this block.

    Small models are quicker with one: handing out the work costs more than it saves, above all on a machine
    that has other things to do.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
