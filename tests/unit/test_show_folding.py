"""What shares a line and what never does: rows, alarms and steps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_steps import FROZEN_BUT_MOVED, network, step, tensor, two_tasks

from layerlab.record import Alarm, Parts, Reason
from layerlab.show import Shown, describe_step, describe_steps
from layerlab.show.alphabet import ALARM
from layerlab.show.html import html
from layerlab.show.page import Description
from layerlab.show.text import text
from layerlab.show.warn import warnings_of


def lines(page):
    """First cells and folds of a step's table."""
    body = page.tables[-1]
    return [row.cells[0].text for row in body.rows], [fold.summary for fold in body.folds]


def test_small_networks_are_shown_whole():
    rows, folds = lines(describe_step(step(*network(8, Reason.NO_GRADIENT, 0.0, grad="none"))))
    assert len(rows) == 8
    assert folds == []


def test_tensors_that_stayed_for_one_reason_share_a_line():
    still = network(14, Reason.NO_GRADIENT, 0.0, grad="none")
    alone = tensor("alone", Reason.LR_ZERO)
    page = describe_step(step(*still, alone, tensor("fc.weight", ratio=0.1)))
    assert lines(page) == (["alone", "fc.weight"], ["14 tensors stayed: no gradient"])
    folded = (
        "  14 tensors stayed: no gradient (layer0.0.weight, layer0.1.weight, layer0.2.weight … and 11 more)"
    )
    words = " ".join(text(page).split())
    assert " ".join(folded.split()) in words
    drawn = html(page)
    assert drawn.count("<details>") == 1
    assert all(f"<code>{t.name}</code>" in drawn for t in still)


def test_two_still_tensors_are_enough_to_fold_and_one_is_not():
    still = [tensor(f"s{i}", Reason.NO_GRADIENT, grad="none") for i in range(2)]
    page = describe_step(step(*network(7), *still))
    assert lines(page)[1] == ["2 tensors stayed: no gradient"]
    page = describe_step(step(*network(8), still[0]))
    assert lines(page)[0][-1] == "s0"
    assert lines(page)[1] == []


def test_frozen_and_unfrozen_tensors_fold_apart():
    still = network(4, Reason.NO_GRADIENT, 0.0, grad="none")
    frozen = [tensor(f"f{i}", Reason.NO_GRADIENT, grad="none", frozen="requires_grad") for i in range(5)]
    assert lines(describe_step(step(*still, *frozen)))[1] == [
        "4 tensors stayed: no gradient",
        "❄ 5 frozen tensors stayed: no gradient",
    ]


def test_more_than_twenty_moved_tensors_fold_by_module():
    assert len(lines(describe_step(step(*network(20))))[0]) == 20
    tensors = network(24)
    tensors[0] = tensor(tensors[0].name, ratio=0.02)
    page = describe_step(step(*tensors))
    assert lines(page)[0] == [f"layer{i}: 6 tensors" for i in range(4)]
    assert [row.cells[2].text for row in page.tables[0].rows] == ["0.001…0.02", "0.001", "0.001", "0.001"]
    assert page.tables[0].rows[0].cells[1].bar == pytest.approx(1 + math.log10(0.02) / 6)


def test_parameters_and_buffers_fold_apart():
    buffers = network(12, Reason.FORWARD, 0.1, kind="buffer")
    parameters = [tensor(t.name + "_p", ratio=0.1) for t in buffers]
    assert lines(describe_step(step(*buffers, *parameters)))[0] == [
        "layer0: 6 buffers", "layer1: 6 buffers", "layer0: 6 tensors", "layer1: 6 tensors",
    ]  # fmt: skip


def test_a_wrapper_module_is_not_one_great_fold():
    tensors = [tensor(f"backbone.{t.name}", ratio=0.1) for t in network(24)]
    assert lines(describe_step(step(*tensors)))[0] == [f"backbone.layer{i}: 6 tensors" for i in range(4)]


def test_a_hundred_modules_fold_into_one_line():
    tensors = [tensor(f"{i}.weight", ratio=0.1) for i in range(100)]
    assert lines(describe_step(step(*tensors)))[0] == ["all modules: 100 tensors"]


@pytest.mark.parametrize(
    "facts",
    [
        {"reason": Reason.MOMENTUM},
        {"reason": Reason.WEIGHT_DECAY},
        {"reason": Reason.OUTSIDE},
        {"reason": Reason.UNKNOWN},
        {"reason": Reason.BELOW_RESOLUTION, "ratio": 0.0},
        {"reason": Reason.NO_GRADIENT, "ratio": 0.0, "grad": "nonfinite"},
        {"frozen": "grad_none"},
        {"grad": "nonfinite"},
        {"grad_stale": True},
        {"moved_outside": True},
        {"zero_grad_rows_moved": 2},
        {"parts": Parts(1, 0, 2, 1.0, 5, 5)},
        {"parts": Parts(1, 2, 0, -0.6, 5, 5)},
    ],
)
def test_a_surprising_tensor_keeps_its_own_row(facts):
    odd = [tensor(f"layer1.odd{i}", **({"ratio": 0.1} | facts)) for i in range(2)]
    still = [tensor(f"s{i}", Reason.NO_GRADIENT) for i in range(3)]
    rows, _ = lines(describe_step(step(*network(30), *odd, *still)))
    assert [name for name in rows if "odd" in name] == ["layer1.odd0", "layer1.odd1"]
    assert len(rows) == 7


def test_a_crowd_with_one_surprising_tale_folds_but_keeps_its_mark():
    tensors = network(30, Reason.FORWARD, 0.1, kind="buffer", frozen="requires_grad")
    alarms = [replace(FROZEN_BUT_MOVED, name=t.info.module) for t in tensors]
    page = describe_step(step(*tensors, tensor("layer0.fc", ratio=0.1), alarms=alarms))
    marks = {row.cells[0].text: (row.cells[0].mark, row.level) for row in page.tables[0].rows}
    assert marks == {f"layer{i}: 6 buffers": ("⚠❄", "alarm") for i in range(5)} | {"layer0.fc": ("", None)}


# --- alarms -----------------------------------------------------------------------------------------------


def test_only_alarms_mark_rows_and_notices_come_last():
    notice = Alarm("n", "notice", "b", 0, "easy to overlook", "", "")
    alarm = Alarm("a", "alarm", "a", 0, "not meant", "because", "x = 1\ny = 2")
    page = describe_step(step(tensor("a", ratio=0.1), tensor("b", ratio=0.1), alarms=[notice, alarm]))
    assert [row.cells[0].mark for row in page.tables[0].rows] == [ALARM, ""]
    assert text(page).startswith(
        "⚠ a: not meant (step 0)\n    why:  because\n    cure: x = 1\n          y = 2\n"
        "! b: easy to overlook (step 0)\n"
    )


def test_an_alarm_that_names_a_module_marks_what_moved_in_it():
    tensors = [
        tensor("bn.weight", Reason.NO_GRADIENT),
        tensor("bn.running_mean", Reason.FORWARD, 0.1, kind="buffer"),
    ]
    page = describe_step(step(*tensors, alarms=[replace(FROZEN_BUT_MOVED, name="bn")]))
    assert [row.level for row in page.tables[0].rows] == [None, "alarm"]


def of_alarms(alarms):
    return Description(alarms=warnings_of(alarms))


def test_alike_alarms_are_told_once():
    names = [f"layer{i}.0.bn" for i in range(5)]
    alarms = [
        Alarm(
            "s", "alarm", n, i, f"buffers of {n} moved", "train mode", f"model.layer{i}[0].bn.eval()", i + 1
        )
        for i, n in enumerate(names)
    ]
    page = of_alarms([*alarms, replace(alarms[0], cause="another cause")])
    assert len(page.alarms) == 2
    assert page.alarms[0].names == tuple(names)
    assert text(page).startswith(
        "⚠ layer0.0.bn, layer1.0.bn, layer2.0.bn … and 2 more: buffers of layer0.0.bn moved (first in step "
        "0,\n  in 5 steps)\n    why:  train mode\n    cure: model.layer0[0].bn.eval()\n"
        "          # likewise for the 4 others\n"
    )
    assert all(f"<code>{name}</code>" in html(page) for name in names)


@pytest.mark.parametrize(
    ("step_index", "count", "said"),
    [
        (-1, 1, "(before the first step)"),
        (-1, 2, "(before the first step, seen 2 times)"),
        (3, 1, "(step 3)"),
    ],
)
def test_when_an_alarm_was_seen(step_index, count, said):
    page = of_alarms([replace(FROZEN_BUT_MOVED, step=step_index, count=count)])
    assert said in " ".join(text(page).split())


def test_no_step_is_said():
    empty = Shown(describe_steps([], []))
    assert repr(empty) == "no step recorded yet: call step() of a watched optimizer inside the with block"
    assert empty._repr_html_() == f"<div>\n<p>{empty!r}</p>\n</div>"


# --- a long ledger ----------------------------------------------------------------------------------------


def test_one_step_needs_no_matrix():
    assert len(describe_steps(two_tasks()[:1], []).tables) == 1


def test_a_thousand_steps_show_the_last_twelve_and_count_the_others():
    steps = [replace(s, index=i) for i, s in enumerate(two_tasks() * 500)]
    matrix = describe_steps(steps, [FROZEN_BUT_MOVED]).tables[0]
    titles = [column.title for column in matrix.columns]
    assert titles == ["tensor", "… 988 earlier steps", *map(str, range(988, 1000))]
    assert [row.cells[1].text for row in matrix.rows] == ["● 494 ▲ 494", "● 494 ○ 494", "● 988"]
    assert [cell.text for cell in matrix.rows[0].cells[2:]] == ["●", "▲"] * 6
    assert matrix.rows[1].cells[1].hover == "no gradient: 494 steps, gradient: 494 steps"


def test_twelve_steps_need_no_fold():
    steps = [step(tensor("w", ratio=0.1), index=i) for i in range(12)]
    assert [c.title for c in describe_steps(steps, []).tables[0].columns] == ["tensor", *map(str, range(12))]


def test_a_large_matrix_folds_alike_rows_but_not_the_surprising_one():
    steps = [step(*network(24), index=0), step(*network(24), index=1)]
    odd = tensor("layer2.3.weight", Reason.MOMENTUM, 0.1)
    steps[1].tensors["layer2.3.weight"] = odd
    rows = [[cell.text for cell in row.cells] for row in describe_steps(steps, []).tables[0].rows]
    assert ["layer2.3.weight", "●", "▲"] in rows
    assert ["layer2: 5 tensors", "●", "●"] in rows
    assert len(rows) == 5


def test_rows_of_a_large_matrix_that_an_alarm_names_are_not_folded():
    steps = [step(*network(24), index=i) for i in range(2)]
    named = ["layer2.2.weight", "layer2.3.weight"]
    page = describe_steps(steps, [replace(FROZEN_BUT_MOVED, name=name) for name in named])
    assert [row.cells[0].text for row in page.tables[0].rows if row.level == "alarm"] == named


def test_a_tensor_that_appears_later_has_an_empty_cell_before():
    steps = [step(tensor("a", ratio=0.1)), step(tensor("a", ratio=0.1), tensor("b", ratio=0.1), index=1)]
    rows = [[cell.text for cell in row.cells] for row in describe_steps(steps, []).tables[0].rows]
    assert rows == [["a", "●", "●"], ["b", "", "●"]]


def test_an_alarm_about_a_module_marks_what_moved_while_it_held():
    def moved(reason=Reason.GRADIENT, **facts):
        return [
            tensor("norm.weight", reason, **facts),
            tensor("norm.running_mean", Reason.FORWARD, 0.1, kind="buffer"),
        ]

    alarm = Alarm("frozen-buffers-moved", "alarm", "norm", 1, "its buffers moved", "", "norm.eval()")
    frozen = {"frozen": "requires_grad", "grad": "none"}
    steps = [step(*moved(ratio=0.1)), step(*moved(Reason.NO_GRADIENT, **frozen), index=1, alarms=[alarm])]
    marks = [row.cells[0].mark for row in describe_steps(steps, [alarm]).tables[0].rows]
    assert [ALARM in mark for mark in marks] == [False, True]
