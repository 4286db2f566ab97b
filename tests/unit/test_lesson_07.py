"""Lesson 07's tables and picture; its check takes right solutions, and tells typical mistakes apart."""

import pytest
import torch
from torch import nn

import layerlab as ll
from layerlab.experiments.backward_cost import Cost
from layerlab.experiments.places import sweep
from layerlab.experiments.what_moves import ForwardFacts
from layerlab.lessons_support.lesson_07 import layer_table, picture, place_chart, place_table
from layerlab.lessons_support.still_body import WordNet, check_still_body


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def untie(net):
    net.head.weight = nn.Parameter(net.body.words.weight.detach().clone())


def flags(net):
    untie(net)
    net.body.requires_grad_(False)
    return sgd(net.head.parameters())


def flags_then_untie(net):
    net.body.requires_grad_(False)
    untie(net)
    return sgd(net.parameters())


def freeze_of_ours(net):
    untie(net)
    ll.freeze(net, "body")
    return torch.optim.AdamW(net.parameters(), lr=0.1)


def the_texts_recipe(net):
    for param in net.body.parameters():
        param.requires_grad = False
    return sgd(filter(lambda p: p.requires_grad, net.parameters()))


def untied_without_a_copy(net):
    net.head.weight = nn.Parameter(net.body.words.weight)
    net.body.requires_grad_(False)
    return sgd(net.head.parameters())


def untied_with_other_numbers(net):
    net.head.weight = nn.Parameter(torch.zeros(10, 6))
    net.body.requires_grad_(False)
    return sgd(net.head.parameters())


def untied_after_the_optimizer(net):
    net.body.requires_grad_(False)
    optimizer = sgd(net.parameters())
    untie(net)
    return optimizer


def only_the_head_in_the_optimizer(net):
    untie(net)
    return sgd(net.head.parameters())


def nothing_frozen(net):
    untie(net)
    return sgd(net.parameters())


def everything_frozen(net):
    net.requires_grad_(False)
    return sgd(net.parameters())


def no_return(net):
    flags(net)


def typo(net):
    net.boddy.requires_grad_(False)


def body_eval(net):
    net.train()
    net.body.eval()


def all_eval(net):
    net.eval()


def norm_eval(net):
    net.train()
    net.body.norm.eval()


def drop_eval(net):
    net.train()
    net.body.drop.eval()


def train(net):
    net.train()


def failed(verdict):
    return [f"{line.text} {line.cure}" for line in verdict.lines if not line.ok]


@pytest.mark.parametrize("prepare", [flags, flags_then_untie, freeze_of_ours])
@pytest.mark.parametrize("mode", [body_eval, all_eval])
def test_right_solutions_pass(prepare, mode):
    assert check_still_body(prepare, mode).passed


DROPOUT, STATISTICS, FEATURES = "Dropout still draws", "every forward pass updates", "in eval mode"


@pytest.mark.parametrize(
    ("prepare", "mode", "said"),
    [
        (the_texts_recipe, train, ["still the embedding's tensor", STATISTICS, DROPOUT, FEATURES]),
        (the_texts_recipe, body_eval, ["still the embedding's tensor"]),
        (flags, train, [STATISTICS, DROPOUT, FEATURES]),
        (flags, norm_eval, [DROPOUT]),
        (freeze_of_ours, train, [DROPOUT]),
        (flags, drop_eval, [STATISTICS, FEATURES]),
        (untied_without_a_copy, body_eval, ["over the embedding's memory", "body.words.weight", FEATURES]),
        (untied_with_other_numbers, body_eval, ["must begin as the embedding's numbers"]),
        (untied_after_the_optimizer, body_eval, ["head.weight must move"]),
        (only_the_head_in_the_optimizer, body_eval, ["gradients are computed for the body"]),
        (nothing_frozen, body_eval, ["must stay still", "gradients are computed", FEATURES]),
        (everything_frozen, body_eval, ["the head is frozen too"]),
        (no_return, body_eval, ["must return the optimizer, but returned NoneType"]),
        (typo, body_eval, ["AttributeError"]),
        (flags, typo, ["AttributeError"]),
    ],
)
def test_each_typical_mistake_gets_its_own_words(prepare, mode, said):
    messages = failed(check_still_body(prepare, mode))
    assert len(messages) == len(said), messages
    for message, words in zip(messages, said, strict=True):
        assert words in message


def test_the_exercises_network_is_tied():
    net = WordNet()
    assert net.head.weight is net.body.words.weight is net.embedding
    assert net(torch.arange(10)).shape == (10, 10)


def test_the_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_still_body(flags, body_eval)
    assert torch.equal(torch.rand(2), expected)


def test_a_layer_that_does_nothing_has_only_dashes():
    calm = ForwardFacts((), (), repeats=True, alone=True)
    moving = ForwardFacts(("norm.mean", "norm.var"), (), repeats=False, alone=False)
    lines = repr(layer_table({"calm": (calm, calm), "wild": (moving, moving)}, "layers")).splitlines()
    assert lines[-2].split() == ["calm", "–", "–", "–", "–"]
    assert lines[-1].startswith("wild   mean, var         another output    another output")
    assert lines[-1].endswith(
        "moves mean, var; same input twice: another output; other examples beside it: another output"
    )


def cost(backward, activations=0, gradients=0):
    return Cost(activations=activations, gradients=gradients, state=0, forward=0, backward=backward)


def test_a_row_of_blocks():
    assert picture((1, 3), 4) == "❄ 2 ❄ 4"


def test_costs_are_told_in_passes_and_beside_the_guess():
    costs = {(): cost(300, 4_458_756, 75_400), (1,): cost(103, 2_361_092), (2,): cost(200)}
    lines = repr(place_table(costs, 2, 20, "costs", {(1,): 50, (2,): 0})).splitlines()
    assert lines[0] == "costs"
    assert lines[-3].split() == ["1", "2", "15", "100", "–", "4459", "75"]
    assert lines[-2].split() == ["❄", "2", "5", "34", "50", "2361", "0"]
    assert lines[-1].split() == ["1", "❄", "10", "67", "–", "0", "0"]


def test_without_guesses_there_is_no_column_for_them():
    assert "guess" not in repr(place_table({(): cost(1)}, 1, 1, "costs"))


def test_the_picture_has_a_line_for_each_kind_of_place_and_says_no_seconds():
    costs = {(): cost(10, 4), (1,): cost(5, 2), (1, 2): cost(0), (2,): cost(8, 4)}
    fast, slow = (place_chart(costs, dict.fromkeys(costs, 1.0) | {(1,): slow}, 2) for slow in (1.0, 3.0))
    assert fast.words == slow.words
    assert slow.words == (
        "shares of training everything, by k. "
        "operations of backward(): the first k blocks 50%, 0%; the last k blocks 80%, 0%; "
        "block k alone 50%, 80%. "
        "activations kept: the first k blocks 50%, 0%; the last k blocks 100%, 0%; "
        "block k alone 50%, 100%. "
        "(processor time of the step: drawn only, it differs from run to run)"
    )
    work, _, time = slow.figure.axes
    assert [line.get_label() for line in work.lines] == list(sweep(2))
    assert list(work.lines[0].get_ydata()) == [0.5, 0.0]
    assert list(time.lines[0].get_ydata()) == [3.0, 1.0]
    assert time.get_ylim()[1] >= 3.0
    assert slow._repr_png_().startswith(b"\x89PNG")
