"""Why a parameter moves or stays in one optimizer step, found by counterfactual steps on clones.

Asked when the gradients are there and the optimizer has not stepped yet. The answer names the bits that the
step must give; `Verdict.holds` compares them with what the real step gave. Where they differ, or the step
cannot be replayed, the reason is `Reason.UNKNOWN`, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from layerlab.compare import as_real, grad_state, same_bits
from layerlab.group_options import lr_of
from layerlab.record import Parts, Reason
from layerlab.replay import NeedsClosure, Replay, Sample, Without, sampled_grad, widen

_Way: TypeAlias = tuple[object, ...]

SAMPLE = 4096
"""Elements replayed of a larger tensor: enough for a cause, cheap beside the step itself."""

_NO_GRADIENT = Without(gradient=True)
_NO_DECAY = Without(gradient=True, weight_decay=True)
_NOTHING = Without(gradient=True, weight_decay=True, state=True)


@dataclass(eq=False, slots=True)
class Verdict:
    """The reason found for one parameter, with the evidence.

    ``gradient``, ``momentum`` and ``weight_decay`` are the parts of Δ as double-precision tensors over the
    sampled elements; they telescope, so their sum is Δ to double rounding.
    """

    sample: Sample
    reason: Reason
    expected: Tensor | None = None
    """The sampled elements after an unmodified replay."""
    gradient: Tensor | None = None
    momentum: Tensor | None = None
    weight_decay: Tensor | None = None
    idle_rows: bool = False
    """Some sampled elements with a zero gradient move: worth counting the rows of the whole tensor."""

    def holds(self, before: Tensor, after: Tensor) -> bool:
        """Whether the real step gave, bit for bit, what the unmodified replay gave."""
        expected = self.expected if self.expected is not None else self.sample.of(before)
        return same_bits(self.sample.of(after), expected)

    def parts(self) -> Parts | None:
        """The parts' norms, or None where nothing was replayed."""
        if self.gradient is None or self.momentum is None or self.weight_decay is None:
            return None
        pieces = [as_real(p) for p in (self.gradient, self.momentum, self.weight_decay)]
        total = pieces[0] + pieces[1] + pieces[2]
        norms = [float(torch.linalg.vector_norm(p)) for p in pieces]
        scale = norms[0] * float(torch.linalg.vector_norm(total))
        agreement = float((pieces[0] * total).sum()) / scale if scale else 0.0
        shape = self.sample.parameter.shape
        return Parts(norms[0], norms[1], norms[2], agreement, self.gradient.numel(), shape.numel())


class Explainer:
    """Finds the reasons for the steps of one optimizer.

    Parameters
    ----------
    optimizer
        Any optimizer with PyTorch's interface.
    elements
        How many elements of a larger tensor to replay; None replays every tensor whole. A sample is only
        trusted where the optimizer works element by element, which is tried out first, for tensors of each
        number of dimensions and each way that a group asks for; otherwise (Muon, Adafactor, LARS) tensors
        are replayed whole.
    """

    def __init__(self, optimizer: Optimizer, elements: int | None = SAMPLE) -> None:
        self._optimizer = optimizer
        self._elements = elements
        self._elementwise: dict[_Way, bool] = {}
        self._together: bool | None = None

    def explain(self, parameters: Sequence[Tensor]) -> tuple[dict[int, Verdict], str]:
        """Explain the step that is about to happen, for parameters that have a gradient.

        Parameters
        ----------
        parameters
            Members of the optimizer's groups whose ``grad`` is not None.

        Returns
        -------
        verdicts, error
            A verdict for every parameter, by ``id``, and why the step could not be replayed (empty if it
            could).
        """
        optimizer = self._optimizer
        if not parameters:
            return {}, ""
        try:
            groups = [(_way(group), group["params"]) for group in optimizer.param_groups]
            ways = {id(p): way for way, members in groups for p in members}
            samples = [self._sample(optimizer, p, ways[id(p)]) for p in parameters]
            some_sampled = any(self._elementwise.values())
            if some_sampled and self._together is None:
                self._together = _go_together(optimizer, samples)
            verdicts = _verdicts(optimizer, samples, bool(some_sampled and self._together))
            # What a sample cannot settle (it stays, or not by its gradient) is asked of the whole.
            settled = (Reason.GRADIENT, Reason.LR_ZERO)
            doubtful = [v.sample for v in verdicts if v.sample.block and v.reason not in settled]
            for one in doubtful:  # in turn, for the memory's sake
                verdicts += _verdicts(optimizer, [Sample(one.parameter)])
            return {id(v.sample.parameter): v for v in verdicts}, ""
        except Exception as error:
            unknown = {id(p): Verdict(Sample(p), Reason.UNKNOWN) for p in parameters}
            kind = "" if isinstance(error, NeedsClosure) else f"{type(error).__name__}: "
            return unknown, f"{kind}{error}"

    def distrust_samples(self) -> None:
        """Replay every tensor whole from now on: a sample's replay was not what the step gave."""
        self._elements, self._elementwise = None, {}

    def _sample(self, optimizer: Optimizer, parameter: Tensor, way: _Way) -> Sample:
        gradient, kind = parameter.grad, (*way, parameter.dim())
        if (
            self._elements is None
            or gradient is None
            or gradient.is_sparse
            or parameter.numel() <= self._elements
            or self._elementwise.get(kind) is False
        ):
            return Sample(parameter)
        size = self._elements
        sample = Sample(parameter, slice(0, size))
        if not sample.of(gradient).any():  # look for a run that has a gradient, as in an embedding
            flat = Sample(parameter, slice(None)).of(gradient)
            start = min(int(flat.abs().argmax()) // 64 * 64, max(parameter.numel() - size, 0))
            sample = Sample(parameter, slice(start, start + size))
        if kind not in self._elementwise:
            self._elementwise[kind] = _is_elementwise(optimizer, sample)
        return sample if self._elementwise[kind] else Sample(parameter)


def _way(group: dict[str, Any]) -> _Way:
    """What may choose another algorithm for a group: its flags and words, not its numbers."""
    return tuple((name, value) for name, value in group.items() if isinstance(value, (bool, str)))


def _is_elementwise(optimizer: Optimizer, sample: Sample) -> bool:
    """Whether stepping a sample gives the same bits as sampling the stepped whole."""
    whole = Replay(optimizer, [Sample(sample.parameter)]).step()[0]
    try:
        part = Replay(optimizer, [sample]).step()[0]
    except Exception:  # an optimizer that needs the tensor's own shape
        return False
    return same_bits(sample.of(whole), part)


def _go_together(optimizer: Optimizer, samples: list[Sample]) -> bool:
    """Whether stepping the samples as a few long tensors gives the same bits as one by one."""
    apart = Replay(optimizer, samples).step()
    try:
        together = Replay(optimizer, samples, together=True).step()
    except Exception:  # an optimizer that needs the tensors' own shapes
        return False
    return all(map(same_bits, apart, together))


def _verdicts(optimizer: Optimizer, samples: list[Sample], together: bool = False) -> list[Verdict]:
    """Replay, then take away the gradient, weight decay and stored state in turn."""
    replay = Replay(optimizer, samples, together)
    before = [s.of(s.parameter) for s in samples]
    full = replay.step()

    nonzero = [grad_state(sampled_grad(s))[0] != "zero" for s in samples]
    no_gradient = _where(nonzero, replay, _NO_GRADIENT, otherwise=full)

    still_moves = [not same_bits(a, b) for a, b in zip(no_gradient, before, strict=True)]
    no_decay = _where(still_moves, replay, _NO_DECAY, otherwise=no_gradient)

    by_state = [not same_bits(a, b) for a, b in zip(no_decay, before, strict=True)]
    nothing = _where(by_state, replay, _NOTHING, otherwise=before)

    stays = [i for i in range(len(samples)) if same_bits(full[i], before[i])]
    why = _why_they_stay(optimizer, [samples[i] for i in stays], [nonzero[i] for i in stays])
    stayed = dict(zip(stays, why, strict=True))

    parts = _parts(before, full, no_gradient, no_decay, nothing)
    verdicts = []
    for i, sample in enumerate(samples):
        gradient, momentum, decay = parts[i]
        if i in stayed:
            reason = stayed[i]
        elif nonzero[i] and not same_bits(full[i], no_gradient[i]):
            reason = Reason.GRADIENT
        else:
            reason = _larger(momentum, decay)
        idle = _idle_moves(sample, full[i], before[i])
        verdicts.append(Verdict(sample, reason, full[i], gradient, momentum, decay, idle))
    return verdicts


def _parts(*stages: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What the gradient, the stored state and weight decay did to each sample; their sum is Δ.

    The stages are the samples before the step, after it, and after a step without gradient, also without
    weight decay, also without stored state. Small ones of a dtype and device are subtracted in one go.
    """
    alike: dict[tuple[torch.dtype, torch.device, int | None], list[int]] = {}
    for i, tensor in enumerate(stages[0]):
        alone = i if tensor.numel() > SAMPLE else None
        alike.setdefault((tensor.dtype, tensor.device, alone), []).append(i)
    found: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for places in alike.values():
        flat = (widen(torch.cat([stage[i].reshape(-1) for i in places])) for stage in stages)
        start, end, zero, plain, bare = flat
        # What moves it with none of the three is decay under another name (ASGD's lambd).
        pieces = end - zero, plain - bare, (zero - plain) + (bare - start)
        sizes = [stages[0][i].numel() for i in places]
        found.update(zip(places, zip(*(piece.split(sizes) for piece in pieces), strict=True), strict=True))
    return [
        tuple(piece.view(tensor.shape) for piece in found[i])  # type: ignore[misc]
        for i, tensor in enumerate(stages[0])
    ]


def _where(chosen: list[bool], replay: Replay, without: Without, otherwise: list[Tensor]) -> list[Tensor]:
    """Step with something taken away where that is asked for; the others keep ``otherwise``."""
    if not any(chosen):
        return otherwise
    stepped = replay.step(without)
    return [new if ask else old for ask, new, old in zip(chosen, stepped, otherwise, strict=True)]


def _larger(momentum: Tensor, weight_decay: Tensor) -> Reason:
    sizes = [float(torch.linalg.vector_norm(as_real(t))) for t in (momentum, weight_decay)]
    if not sizes[0] and not sizes[1]:
        return Reason.UNKNOWN
    return Reason.MOMENTUM if sizes[0] >= sizes[1] else Reason.WEIGHT_DECAY


def _why_they_stay(optimizer: Optimizer, samples: list[Sample], nonzero: list[bool]) -> list[Reason]:
    """Tell lr = 0, an update too small to show, one of inf or NaN and one of zero apart, by other steps."""
    if _skipped(optimizer):
        return [Reason.SKIPPED] * len(samples)
    reasons = [Reason.UNKNOWN if grad else Reason.ZERO_GRADIENT for grad in nonzero]
    at_zero = [i for i, s in enumerate(samples) if _lr(optimizer, s.parameter) == 0]
    if at_zero:
        chosen = [samples[i] for i in at_zero]
        for i, end in zip(at_zero, Replay(optimizer, chosen).step(lr=1.0), strict=True):
            if not same_bits(end, samples[i].of(samples[i].parameter)):
                reasons[i] = Reason.LR_ZERO
    rest = [i for i, reason in enumerate(reasons) if reason is not Reason.LR_ZERO]
    if rest:
        chosen = [samples[i] for i in rest]
        replay = Replay(optimizer, chosen)
        wide = replay.step(double=True)
        from_zero = replay.step(double=True, at_zero=True)
        for i, end, update in zip(rest, wide, from_zero, strict=True):
            start = widen(samples[i].of(samples[i].parameter))
            finite = start.isfinite()
            updated = (update != 0) | (finite & (end != start))
            if updated.any():
                lost = not (finite & updated).any()
                reasons[i] = Reason.NONFINITE if lost else Reason.BELOW_RESOLUTION
    return reasons


def _skipped(optimizer: Optimizer) -> bool:
    """Whether a gradient scaler told a fused optimizer to skip this step (it found inf or NaN)."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and bool(found.any())


def _lr(optimizer: Optimizer, parameter: Tensor) -> float | None:
    for group in optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            return lr_of(group)
    return None


def _idle_moves(sample: Sample, after: Tensor, before: Tensor) -> bool:
    """Whether an element with a zero gradient moves while others have a gradient."""
    gradient = sampled_grad(sample)
    return not gradient.is_sparse and bool(((gradient == 0) & (after != before)).any())
