"""Lesson 02's check takes right solutions, and tells each typical mistake from the others."""

import pytest
import torch

from layerlab.lessons_support.lesson_02 import OPTIMIZERS, check_pause


def drop(p):
    p.grad = None


def flag_and_drop(p):
    p.requires_grad = False
    p.grad = None


def pop(p, optimizer):
    optimizer.state.pop(p, None)


def unflag_and_pop(p, optimizer):
    p.requires_grad = True
    optimizer.state.pop(p, None)


def zero_the_state(p, optimizer):
    for value in optimizer.state[p].values():
        if isinstance(value, torch.Tensor):
            value.zero_()


def nothing(*arguments):
    pass


def flag(p):
    p.requires_grad = False


def zeros(p):
    p.grad.zero_()


def clear_all(p, optimizer):
    optimizer.state.clear()


def release_only(p, optimizer):
    p.requires_grad = True


def failed(verdict):
    return [f"{line.text} {line.cure}" for line in verdict.lines if not line.ok]


@pytest.mark.parametrize(
    ("pause", "resume"),
    [(drop, pop), (flag_and_drop, unflag_and_pop), (drop, zero_the_state), (drop, unflag_and_pop)],
)
def test_right_solutions_pass_with_every_optimizer(pause, resume):
    verdict = check_pause(pause, resume)
    assert verdict.passed
    assert len(verdict.lines) == len(OPTIMIZERS)


@pytest.mark.parametrize(
    ("pause", "resume", "said"),
    [
        (nothing, pop, ["must stay still, but moved by its gradient"]),
        (flag, unflag_and_pop, ["the gradient of this step was already there"]),
        (zeros, pop, ["its gradient is a tensor of zeros, not None"]),
        (flag_and_drop, pop, ["is still False after resume", "must move, but stayed"]),
        (drop, nothing, ["resumes with its old momentum"]),
        (flag_and_drop, release_only, ["resumes with its old momentum"]),
        (drop, clear_all, ["output.weight must keep its momentum"]),
    ],
)
def test_each_typical_mistake_gets_its_own_words(pause, resume, said):
    messages = failed(check_pause(pause, resume))
    assert len(messages) == len(said)
    for message, words in zip(messages, said, strict=True):
        assert words in message


def test_the_lessons_own_start_is_wrong_in_three_ways():
    messages = " | ".join(failed(check_pause(flag, nothing)))
    for words in ("already there", "is still False", "old momentum"):
        assert words in messages


def test_a_mistake_that_only_one_optimizer_shows_is_found():
    """Popping SGD's buffer by its name leaves AdamW's state where it is."""

    def forget_the_buffer(p, optimizer):
        optimizer.state[p].pop("momentum_buffer", None)

    verdict = check_pause(drop, forget_the_buffer)
    assert "AdamW" in verdict.title
    assert "old momentum" in " ".join(failed(verdict))


def test_a_step_of_ones_own_is_noticed():
    def step_too(p, optimizer):
        optimizer.state.pop(p, None)
        optimizer.step()

    assert "must not call optimizer.step()" in " ".join(failed(check_pause(drop, step_too)))


def test_an_exception_names_the_line():
    def typo(p):
        p.no_such_thing.grad = None

    verdict = check_pause(typo, pop)
    assert not verdict.passed
    assert "AttributeError" in failed(verdict)[0]
    assert "p.no_such_thing.grad = None" in failed(verdict)[0]


def test_the_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_pause(drop, pop)
    assert torch.equal(torch.rand(2), expected)
