"""An exercise's check says what is missed, why, and what cures it; it never stops or raises halfway."""

import pytest
import torch
from branches import Branches, adamw, article_run, backward, train
from torch import nn

from layerlab.ledger import watch
from layerlab.lessons_support.checks import Check
from layerlab.record import Reason


@pytest.fixture(scope="module")
def naive():
    """The left branch is frozen, and moves in step 1 by the zeros in its gradient."""
    return article_run()[0]


@pytest.fixture(scope="module")
def fixed():
    return article_run(set_to_none=True)[0]


def lines(check):
    """The verdict's lines without the title, one string a requirement."""
    return [("✓ " if line.ok else "✗ ") + line.text for line in check.verdict().lines]


def test_a_right_solution_passes_line_by_line(fixed):
    check = Check("Freeze left")
    check.moved(fixed, "right.weight", "out.weight", at=1).stayed(fixed, "left.weight", at=1)
    check.reason(fixed, "left.weight", Reason.NO_GRADIENT, at=1).no_alarms(fixed[1:][0])
    verdict = check.verdict()
    assert verdict.passed
    assert repr(verdict) == (
        "✓ Freeze left: 4 of 4 requirements met\n"
        "✓ right.weight, out.weight moved (gradient)\n"
        "✓ left.weight stayed (no gradient)\n"
        "✓ left.weight stayed: its grad was None, so step() skipped it\n"
        "✓ no alarm: nothing moved or stayed that was not meant to"
    )


def test_a_wrong_solution_is_told_the_alarm_s_cause_and_cure(naive):
    check = Check("Freeze left").stayed(naive[1], "left.weight").moved(naive[1], "out.weight")
    verdict = check.verdict()
    assert not verdict.passed
    first, second = verdict.lines
    alarm = next(a for a in naive[1].alarms if a.name == "left.weight")
    delta = naive[1]["left.weight"].delta_norm
    assert (
        first.text == f"left.weight must stay still, but moved (momentum, ‖Δ‖ = {delta:.2g}): {alarm.cause}"
    )
    assert "a tensor of zeros, not None" in first.text
    assert first.cure == alarm.cure == (
        "model.left.weight.grad = None  # after loss.backward(), before optimizer.step()"
    )  # fmt: skip
    assert f"Try: {alarm.cure}" in repr(verdict)
    assert second.ok
    assert "1 of 2 requirements met" in repr(verdict)


def test_the_quoted_cure_cures():
    net = Branches()
    optimizer = adamw(net)
    with watch(net, optimizer) as ledger:
        train(net, optimizer)
    cure = Check("").stayed(ledger, "left.weight", at=1).verdict().lines[0].cure
    net = Branches()
    optimizer = adamw(net)
    train(net, optimizer, ("left",))
    before = net.left.weight.detach().clone()
    optimizer.zero_grad(set_to_none=False)
    backward(net, "right")
    exec(cure, {"model": net})
    optimizer.step()
    assert torch.equal(before, net.left.weight)


def test_over_a_whole_ledger_stayed_means_always_and_moved_means_ever(naive, fixed):
    check = Check("").moved(fixed, "left.weight", "right.weight").stayed(fixed, "left.weight")
    check.stayed(naive, "left.weight")
    ok, bad, worse = lines(check)
    assert ok == "✓ left.weight, right.weight moved (gradient)"
    assert bad.startswith("✗ left.weight must stay still, but moved by its gradient (step 0, ‖Δ‖ = ")
    assert worse.startswith("✗ left.weight must stay still, but moved by its gradient (step 0, ‖Δ‖ = ")
    assert lines(Check("").moved(naive, "left.weight")) == ["✓ left.weight moved (gradient, momentum)"]


def test_what_never_moves_is_told_why():
    net = Branches()
    optimizer = torch.optim.SGD([net.left.weight, net.right.weight], lr=0.1)
    with watch(net, optimizer) as ledger:
        train(net, optimizer, ("left", "left"), set_to_none=True)
    check = Check("").moved(ledger, "out.weight", "right.weight")
    first, second = check.verdict().lines
    assert first.text.startswith("out.weight must move, but stayed (not in the optimizer, in all 2 steps): ")
    assert "the optimizer was built before" in first.text
    assert first.cure.startswith('optimizer.add_param_group({"params": [model.out.weight]})')
    # The rule for what never moved speaks only at the end of a run, from the ledger.
    assert second.text.startswith("right.weight must move, but stayed (no gradient, in all 2 steps): no loss")
    assert second.cure.startswith("model.right.weight.requires_grad_(False)")


def test_without_an_alarm_the_ledger_s_reason_is_told(fixed):
    (line,) = Check("").moved(fixed, "right.weight", at=0).verdict().lines
    assert line.text == "right.weight must move, but stayed: its grad was None, so step() skipped it"
    assert line.cure == ""


def test_statistics_of_a_frozen_module_are_cured_by_eval():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[1].requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        net(torch.randn(5, 3)).sum().backward()
        optimizer.step()
    check = Check("").stayed(ledger, "1.weight", "1.running_mean", "1.running_var").moved(ledger, "1.weight")
    stayed, moved, weight = check.verdict().lines
    assert stayed.ok
    assert moved.text.startswith("1.running_mean, 1.running_var must stay still, but moved (forward pass, ")
    assert "BatchNorm1d ran in train mode" in moved.text
    assert moved.cure.startswith("model[1].eval()")
    assert not weight.ok
    assert "train mode" not in weight.text  # that alarm speaks of the buffers


def test_many_tensors_of_one_fate_share_a_line():
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(8)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        with watch(net, optimizer) as ledger:
            optimizer.zero_grad()
            net(torch.ones(1, 2)).sum().backward()
            net.requires_grad_(False)  # too late
            optimizer.step()
        net.requires_grad_(True)
    (line,) = Check("").stayed(ledger, *ledger[0]).verdict().lines
    assert line.text.startswith(
        "0.weight, 0.bias, 1.weight … and 13 more must stay still, but moved (gradient"
    )
    assert line.cure.splitlines()[0].startswith("model[0].weight.grad = None")
    assert line.cure.splitlines()[1] == "# likewise for the 15 others"
    assert "\n       # likewise" in repr(Check("").stayed(ledger, *ledger[0]).verdict())


def test_a_wrong_reason_names_both(naive):
    check = Check("").reason(naive[1], "left.weight", "no gradient")
    assert lines(check) == [
        "✗ left.weight: the reason must be “no gradient”, but it moved by momentum: "
        "its gradient was a tensor of zeros, not None"
    ]
    with pytest.raises(ValueError, match="magic"):
        check.reason(naive[1], "left.weight", "magic")
    with pytest.raises(ValueError, match=r"2 steps: say which one"):
        check.reason(naive, "left.weight", Reason.MOMENTUM)


def test_alarms_fail_and_notices_do_not(naive):
    check = Check("").no_alarms(naive)
    assert not check.verdict().passed
    (line,) = check.verdict().lines
    assert line.text.startswith("left.weight: frozen (requires_grad) but moved: momentum (step 1). Why: ")
    assert line.cure == naive.alarms[0].cure
    net = Branches()
    optimizer = adamw(net)
    with watch(net, optimizer) as ledger:
        for _ in range(3):
            train(net, optimizer, ("left",), set_to_none=True)
    assert [(a.level, a.name) for a in ledger.alarms] == [("notice", "right.weight")]
    assert Check("").no_alarms(ledger).verdict().passed


def test_a_run_without_a_step_fails_everything_and_raises_nothing():
    net = Branches()
    with watch(net, adamw(net)) as ledger:
        backward(net)
    check = Check("").moved(ledger, "out.weight").stayed(ledger, "left.weight").no_alarms(ledger)
    check.reason(ledger, "out.weight", Reason.GRADIENT)
    assert len(lines(check)) == 4
    assert {line[:27] for line in lines(check)} == {"✗ no step recorded yet: cal"}


def test_an_unknown_tensor_or_step_is_a_failed_requirement(fixed):
    check = Check("").moved(fixed, "rihgt.weight", "out.weight").stayed(fixed, "left.weight", at=5)
    check.reason(fixed[0], "lfet.weight", Reason.GRADIENT)
    assert [line.partition(".weight, ")[0] for line in lines(check)] == [
        "✗ no tensor named 'rihgt.weight' in step 1; near names: right",
        "✓ out.weight moved (gradient)",
        "✗ there is no step 5: 2 recorded",
        "✗ no tensor named 'lfet.weight' in step 0; near names: left",
    ]


def test_a_mistake_of_the_check_s_author_is_raised(fixed):
    with pytest.raises(ValueError, match="name at least one tensor"):
        Check("").moved(fixed)
    with pytest.raises(TypeError, match="not int"):
        Check("").stayed(3, "out.weight")


# -- the learner's function ----------------------------------------------------------------------------------


def helper(values):
    return values["no such key"]


def learners_mistake(values):
    total = 1
    return total + helper(values)


def test_run_gives_back_what_the_function_returns(fixed):
    check = Check("")
    assert check.run(lambda a, b: a + b, 1, b=2) == 3
    assert lines(check) == ["✓ <lambda> ran to its end"]


def test_a_function_that_runs_often_is_told_once(fixed):
    check = Check("")
    for _ in range(3):
        check.run(len, [])
    assert lines(check) == ["✓ len ran to its end"]


def test_an_exception_is_told_with_its_line_and_stops_what_needs_the_run(fixed):
    check = Check("Broken")
    assert check.run(learners_mistake, {}) is None
    check.moved(fixed, "out.weight").no_alarms(fixed).that(lambda: 1 / 0, "", "")
    number = helper.__code__.co_firstlineno + 1
    assert repr(check.verdict()) == (
        "✗ Broken: 0 of 4 requirements met\n"
        "✗ learners_mistake raised KeyError: 'no such key', "
        f'at line {number}: return values["no such key"]\n'
        "– 3 more not looked at: they need code that runs to its end"
    )
    assert not check.verdict().passed


def in_two_cells(*sources):
    """Define functions as a notebook does: one namespace, a file name for each cell."""
    import linecache

    space = {"torch": torch, "nn": nn}
    for i, source in enumerate(sources):
        file = f"<cell {i}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), space)
    return space


def test_the_line_is_one_of_the_function_s_own_cell():
    space = in_two_cells(
        "\n\n\n\ndef build():\n    return nn.Linear(3, 2)(torch.ones(5))\n",
        "def train():\n    x = 1\n    return build() + x\n",
    )
    check = Check("")
    check.run(space["train"])
    (line,) = lines(check)
    assert line.startswith("✗ train raised RuntimeError: ")
    assert line.endswith(", at line 3: return build() + x")


def test_an_exception_deep_in_torch_is_laid_at_the_learner_s_line():
    class Wrong(nn.Module):
        def forward(self, x):
            return nn.functional.linear(x, torch.ones(3, 4))

    check = Check("")
    check.run(Wrong(), torch.ones(1, 2))
    (line,) = lines(check)
    assert line.startswith("✗ Wrong raised RuntimeError: ")
    assert line.endswith(": return nn.functional.linear(x, torch.ones(3, 4))")


def test_a_call_that_does_not_fit_names_no_line():
    check = Check("")
    check.run(learners_mistake)
    assert lines(check) == [
        "✗ learners_mistake raised TypeError: "
        "learners_mistake() missing 1 required positional argument: 'values'"
    ]  # fmt: skip


def test_a_stop_by_the_learner_is_not_caught():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Check("").run(stop)


# -- any other fact, and how it looks ------------------------------------------------------------------------


def test_any_other_fact_is_required():
    check = Check("").that(True, "good", "bad").that(torch.tensor(0.0) > 1, "good", "bad")
    check.that(lambda: [][0], "good", "the list must not be empty")
    assert lines(check) == [
        "✓ good",
        "✗ bad",
        "✗ the list must not be empty (IndexError: list index out of range)",
    ]


def test_nothing_required_is_nothing_passed():
    verdict = Check("Empty").verdict()
    assert not verdict.passed
    assert repr(verdict) == "✗ Empty: nothing is required yet"


def test_html_says_what_the_text_says_and_escapes_it(naive):
    check = Check("<b>Freeze</b>").stayed(naive, "left.weight", at=1)
    check.that(False, "", "<img src=x onerror=alert(1)>")
    html = check._repr_html_()
    assert "<b>" not in html
    assert "<img" not in html
    assert "&lt;b&gt;Freeze&lt;/b&gt;: 0 of 2 requirements met" in html
    assert html.count("<li>✗ ") == 2
    folded = "<details><summary>A line that helps</summary><code>"
    assert f"{folded}model.left.weight.grad = None  # after loss.backward()" in html
    assert html == check.verdict()._repr_html_()


def test_the_same_run_has_the_same_verdict():
    said = {repr(Check("x").stayed(article_run()[0], "left.weight", "out.weight", at=1)) for _ in range(2)}
    assert len(said) == 1
    assert " at 0x" not in said.pop()


# -- in the learner's words ----------------------------------------------------------------------------------


def test_a_cure_calls_things_as_the_learner_does():
    net = Branches()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        net(torch.randn(4, 3)).sum().backward()
        optimizer.step()
    check = Check("", called={"model.out.weight": "w", "model": "net"})
    verdict = check.stayed(ledger, "left", "out", label="step 0").verdict()
    assert [line.text.partition(":")[0] for line in verdict.lines] == ["step 0"]
    assert verdict.lines[0].cure.startswith("net.left.weight.requires_grad_(False)")
    verdict = Check("", called={"model.out.weight": "w"}).stayed(ledger, "out.weight").verdict()
    assert verdict.lines[0].cure.startswith("w.requires_grad_(False)")


def test_a_module_stands_for_its_tensors(fixed):
    verdict = Check("").moved(fixed, "norm").verdict()
    assert "norm.running_mean" in verdict.lines[0].text


def test_a_forgotten_ledger_and_an_unknown_reason_are_told(fixed):
    with pytest.raises(TypeError, match="give a ledger or a step of it first, not str"):
        Check("").stayed("out")
    with pytest.raises(ValueError, match="no reason 'gradint'; the reasons are gradient, momentum"):
        Check("").reason(fixed, "out.weight", "gradint", at=0)
