"""What a learner reads of one step and of a ledger: golden text and HTML, and each rule of the look."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_steps import FROZEN_BUT_MOVED, step, tensor, two_tasks

from layerlab.record import Parts, Reason
from layerlab.show import Shown, describe_step, describe_steps
from layerlab.show.html import html
from layerlab.show.text import text
from layerlab.show.words import blocks

ALARM_TEXT = """\
⚠ hidden_task1.weight: frozen (requires_grad) but moved: momentum (step 1)
    why:  its gradient is a tensor of zeros, not None
    cure: model.hidden_task1.weight.grad = None"""

STEP_TEXT = """\
step 1, AdamW, lr 0.1: 3 of 3 tensors moved
   tensor               moved         ‖Δ‖/‖w‖ (ratio)  why         grad     parts (share of norms)
⚠❄ hidden_task1.weight  █████████▋              0.067  ▲ momentum  zero     ▲ 90% ◆ 10%
   hidden_task2.weight  ████████████                1  ● gradient  nonzero  ● 100%
   output.weight        ██████                  0.001  ● gradient  nonzero  ● 30% ▲ 70%
  bar: the ratio on a log scale, empty at 1e-6, full at 1; ❄ frozen"""

MATRIX_TEXT = """\
2 steps: which tensor moved in which step, and why
   tensor               0  1
⚠❄ hidden_task1.weight  ●  ▲
   hidden_task2.weight  ○  ●
   output.weight        ●  ●
  ● gradient   ▲ momentum   ○ stayed"""


def test_a_step_of_the_two_task_network_in_a_terminal():
    assert text(describe_step(two_tasks()[1])) == f"{ALARM_TEXT}\n\n{STEP_TEXT}"


def test_a_ledger_shows_alarms_then_the_matrix_then_the_last_step():
    shown = Shown(describe_steps(two_tasks(), [FROZEN_BUT_MOVED]))
    assert repr(shown) == f"{ALARM_TEXT}\n\n{MATRIX_TEXT}\n\n{STEP_TEXT}"


def test_a_step_as_html():
    left = 'align="left" style="text-align:left"'
    head = 'align="left" style="text-align:left;font-weight:normal"'
    right = 'align="right" style="text-align:right"'
    blue = 'style="color:color-mix(in srgb, #0072B2 70%, currentcolor)"'
    grey = 'style="color:color-mix(in srgb, #999999 60%, currentcolor)"'
    hover = "‖Δ‖ = 0.02, ‖w‖ = 2, largest |Δ| = 0.01"
    caption = 'align="left" style="text-align:left;white-space:nowrap"'
    about = "parameter 4×3 of Linear"
    expected = f"""\
<div>
<table style="margin-left:0">
<caption {caption}>step 0, AdamW, lr 0.1: 1 of 2 tensors moved</caption>
<thead><tr><th scope="col" {left}>tensor</th><th scope="col" {left}>moved</th>\
<th scope="col" {right}>‖Δ‖/‖w‖ (ratio)</th><th scope="col" {left}>why</th>\
<th scope="col" {left}>grad</th></tr></thead>
<tbody>
<tr><th scope="row" title="{about}" {head}><code>a.weight</code></th>\
<td {left}><samp aria-hidden="true" {blue}>████████</samp></td>\
<td title="{hover}" {right}><samp>0.01</samp></td>\
<td title="moved by its gradient" {left}><span {blue}>●</span> gradient</td>\
<td title="largest |gradient| = 0.5" {left}>nonzero</td></tr>
<tr><th scope="row" title="frozen by grad_none; {about}" {head}>❄ <code>b.weight</code></th><td {left}></td>\
<td title="no bit of it changed" {right}><samp>0</samp></td>\
<td title="stayed: its grad was None, so step() skipped it" {left}><span {grey}>○</span> no gradient</td>\
<td title="largest |gradient| = 0" {left}>none</td></tr>
</tbody>
</table>
<p><small>bar: the ratio on a log scale, empty at 1e-6, full at 1; ❄ frozen</small></p>
</div>"""
    a = tensor("a.weight", ratio=0.01)
    b = tensor("b.weight", Reason.NO_GRADIENT, grad="none", grad_max=0.0, frozen="grad_none")
    assert html(describe_step(step(a, b))) == expected


def test_an_alarm_as_html_stands_above_the_table_with_its_cure():
    drawn = html(describe_step(two_tasks()[1]))
    assert drawn.index("cure: <code>model.hidden_task1.weight.grad = None</code>") < drawn.index("<table ")
    row = drawn.partition('<th scope="row"')[2].partition("</th>")[0]
    assert "⚠</strong>❄ <code>hidden_task1.weight</code>" in row


# --- what a step's table leaves out, and what it never does -----------------------------------------------


def headings(*tensors):
    return [column.title for column in describe_step(step(*tensors)).tables[0].columns]


def test_ordinary_columns_are_left_out():
    assert headings(tensor("a", ratio=0.1)) == ["tensor", "moved", "‖Δ‖/‖w‖ (ratio)", "why"]


@pytest.mark.parametrize(
    ("facts", "column", "said"),
    [
        ({"grad": "zero"}, "grad", "zero"),
        ({"grad": "none"}, "grad", "none"),
        ({"grad": "nonfinite"}, "grad", "inf or NaN"),
        ({"grad_stale": True}, "grad", "nonzero, stale"),
        ({"zero_grad_rows_moved": 3}, "grad", "nonzero, 3 zero rows moved"),
        ({"zero_grad_rows_moved": 1}, "grad", "nonzero, 1 zero row moved"),
        ({"training": False}, "mode", "eval"),
        ({"lr": 0.00125}, "lr", "0.00125"),
        ({"parts": Parts(1, 3, 0, 1.0, 5, 5)}, "parts (share of norms)", "● 25% ▲ 75%"),
        ({"parts": Parts(1, 3, 0, 1.0, 4, 5)}, "parts (share of norms)", "~● 25% ▲ 75%"),
        ({"parts": Parts(1, 0, 0.001, 1.0, 5, 5)}, None, None),
        ({"parts": Parts(1, 3, 0, -1, 5, 5)}, "parts (share of norms)", "● 25% ▲ 75%, against its gradient"),
        ({"parts": Parts(math.nan, 1, 0, 1, 5, 5)}, "parts (share of norms)", "● nan ▲ nan ◆ nan"),
    ],
)  # fmt: skip
def test_a_surprising_fact_brings_its_column(facts, column, said):
    ordinary, surprising = tensor("a", ratio=0.1), tensor("b", ratio=0.1, **facts)
    page = describe_step(step(ordinary, surprising)).tables[0]
    extra = [c.title for c in page.columns][4:]
    assert extra == ([column] if column else [])
    if column:
        assert page.rows[1].cells[4].text == said


def ratio_of(t):
    return describe_step(step(t)).tables[0].rows[0].cells[2].text


def test_ratios_that_need_a_word():
    assert ratio_of(tensor("bias", ratio=0.1, weight_norm=0.0)) == "inf (was 0)"
    assert ratio_of(tensor("w", ratio=0.1, delta_norm=math.nan)) == "nan"
    counter = tensor("n", Reason.FORWARD, 1.0, kind="buffer", dtype="torch.int64", delta_max=1.0)
    assert ratio_of(counter) == "by 1"
    assert describe_step(step(counter)).tables[0].rows[0].cells[1].bar is None
    assert ratio_of(tensor("w", Reason.LR_ZERO)) == "0"


def test_bars_share_one_log_scale():
    tensors = [tensor(f"w{i}", ratio=10.0**-i) for i in range(8)]
    bars = [row.cells[1].bar for row in describe_step(step(*tensors)).tables[0].rows]
    assert bars == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0], abs=1e-12)
    assert blocks(0.0) == "▏", "a tensor that moved is never without a bar"
    assert blocks(1.0) == "█" * 12
    assert blocks(7.5 / 12) == "███████▌"


def test_moved_outside_too_is_said_beside_the_reason():
    t = tensor("w", ratio=0.1, moved_outside=True)
    assert "● gradient, ✱ outside" in text(describe_step(step(t)))
    batch_norm = tensor("m", Reason.FORWARD, 0.1, kind="buffer", moved_outside=True)
    assert "✱" not in text(describe_step(step(batch_norm)))


def test_tied_names_are_all_shown():
    t = tensor("embed.weight", ratio=0.1, names=("embed.weight", "head.weight"))
    assert "embed.weight (tied: head.weight)" in text(describe_step(step(t)))
    alarm = replace(FROZEN_BUT_MOVED, name="head.weight")
    assert describe_step(step(t, alarms=[alarm])).tables[0].rows[0].level == "alarm"


def test_a_step_that_raised_says_so():
    page = describe_steps([step(tensor("w", ratio=0.1)), step(tensor("w"), index=1, completed=False)], [])
    assert "step 1, AdamW, lr 0.1: step() raised before it finished; 0 of 1 tensor moved" in text(page)
    assert "! step() raised before it finished" in text(page)
    assert [column.title for column in page.tables[0].columns] == ["tensor", "0", "1!"]


def test_why_a_step_was_not_replayed_is_said():
    page = describe_step(step(tensor("w", Reason.UNKNOWN, 0.1), note="LBFGS takes a closure"))
    assert "? unknown" in text(page)
    assert "not replayed: LBFGS takes a closure" in text(page)


def test_a_model_without_tensors():
    assert "the model has no parameters and no buffers" in text(describe_step(step()))


def test_a_second_optimizer_is_named():
    first, second = step(tensor("w", ratio=0.1)), step(tensor("w", ratio=0.1), index=1)
    second.optimizer = 1
    page = describe_steps([first, second], [])
    assert [column.title for column in page.tables[0].columns] == ["tensor", "0 opt0", "1 opt1"]
    assert "step 1, AdamW (optimizer 1), lr 0.1: 1 of 1 tensor moved" in text(page)
