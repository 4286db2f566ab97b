"""Which steps' values are kept for pictures, within a bound on memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Keep = Literal["auto", "all", "none"] | Iterable[int] | Callable[[int], bool]

AUTO_ELEMENTS = 16_384
"""With ``keep="auto"``: tensors of more elements than this are not kept."""
AUTO_BYTES = 64 * 2**20
"""With ``keep="auto"``: the oldest steps are dropped beyond this many bytes."""


@dataclass(eq=False, slots=True)
class Values:
    """One tensor's values in one step, detached copies in its own dtype.

    ``parts`` holds ``gradient``, ``momentum`` and ``weight_decay`` in double precision, which sum to
    ``after − before`` (less what was edited outside the step); empty where the step was not replayed whole.
    """

    before: Tensor
    after: Tensor
    gradient: Tensor | None = None
    parts: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    """The optimizer's stored state after the step (``momentum_buffer``, ``exp_avg``, …)."""

    def nbytes(self) -> int:
        """Bytes that it holds."""
        held = [self.before, self.after, *self.parts.values(), *self.state.values()]
        return sum(
            t.numel() * t.element_size()
            for t in held + ([self.gradient] if self.gradient is not None else [])
        )


class Keeper:
    """Keeps values of chosen steps.

    Parameters
    ----------
    keep
        ``"auto"``: every step, tensors of up to 16,384 elements, the newest 64 MiB. ``"none"``: nothing.
        ``"all"``, step numbers, or a function from step number to bool: those steps, whole, without a bound.

    Raises
    ------
    ValueError
        For another word, or a negative step number.
    TypeError
        For anything else.
    """

    def __init__(self, keep: Keep = "auto") -> None:
        self._bounded = isinstance(keep, str) and keep == "auto"
        self._wants = _chooser(keep)
        self._steps: OrderedDict[int, dict[str, Values]] = OrderedDict()
        self._bytes = 0

    def wants(self, step: int, elements: int) -> bool:
        """Whether the values of a tensor of so many elements are to be kept at this step."""
        return self._wants(step) and (not self._bounded or elements <= AUTO_ELEMENTS)

    def add(self, step: int, name: str, values: Values) -> None:
        """Keep them; drop the oldest steps if that is beyond the bound."""
        self._steps.setdefault(step, {})[name] = values
        self._bytes += values.nbytes()
        while self._bounded and self._bytes > AUTO_BYTES and len(self._steps) > 1:
            _, dropped = self._steps.popitem(last=False)
            self._bytes -= sum(v.nbytes() for v in dropped.values())

    def get(self, step: int, name: str) -> Values | None:
        """Return the kept values, or None."""
        return self._steps.get(step, {}).get(name)

    @property
    def steps(self) -> list[int]:
        """The steps of which values are kept."""
        return list(self._steps)


def _chooser(keep: Keep) -> Callable[[int], bool]:
    if isinstance(keep, str):
        if keep not in ("auto", "all", "none"):
            raise ValueError(
                f"keep={keep!r}: give 'auto', 'all', 'none', step numbers, or a function of the step number"
            )
        return lambda step: keep != "none"
    if callable(keep):
        return keep
    try:
        chosen = frozenset(keep)
    except TypeError:
        raise TypeError(
            f"keep must be 'auto', 'all', 'none', step numbers or a function, not {type(keep).__name__}"
        ) from None
    wrong = [s for s in chosen if not isinstance(s, int) or s < 0]
    if wrong:
        raise ValueError(f"keep holds {wrong[0]!r}: steps are numbered 0, 1, 2, …")
    return lambda step: step in chosen
