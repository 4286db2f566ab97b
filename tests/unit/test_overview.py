"""What a StepView is sent of the steps: read back byte by byte as the docstring says, and compared."""

import json
import math
import struct

import pytest
from made_steps import FROZEN_BUT_MOVED, network, step, tensor, two_tasks

from layerlab.record import Alarm, Parts, Reason
from layerlab.show.overview import ABSENT, BUDGET, LONGEST, Overview


def window(steps, around=None):
    overview = Overview()
    overview.read(steps)
    return overview.window(around) | {"tensors": overview.tensors()}


def rows(sent):
    """Read the bytes with nothing but the docstring: a dict from (step, tensor) to what is sent of it."""
    names = [described[6] if len(described) > 6 else described[0] for described in sent["tensors"]]
    cells = [(sent["first"] + s, name) for s in range(len(sent["steps"])) for name in names]
    n = len(cells)
    facts = struct.unpack_from(f"<{n}H", sent["rows"])
    ratios = struct.unpack_from(f"<{n}f", sent["rows"], 2 * n)
    shares = list(struct.iter_unpack("<3B", sent["rows"][6 * n :]))
    assert len(shares) == n
    return {
        cell: (sent["facts"][facts[i]], ratios[i], shares[i])
        for i, cell in enumerate(cells)
        if facts[i] != ABSENT
    }


def size(sent):
    plain = {key: value for key, value in sent.items() if key not in ("rows", "tensors")}  # sent apart
    return len(json.dumps(plain, ensure_ascii=False, allow_nan=False).encode()) + len(sent["rows"])


def test_what_is_sent_is_what_was_recorded():
    steps = two_tasks()
    sent = window(steps)
    found = rows(sent)
    assert len(found) == 6
    for one in steps:
        for t in one.values():
            facts, ratio, shares = found[one.index, t.name]
            assert facts["reason"] == t.reason.value
            assert facts["moved"] == t.moved
            assert ratio == pytest.approx(t.update_ratio)
            assert ("❄" in facts["marks"]) == (t.frozen is not None)
            if t.parts is None:
                assert shares == (255, 255, 255)
    assert found[1, "hidden_task1.weight"][2] == (0, 90, 10)
    assert found[1, "hidden_task1.weight"][0]["alarmed"]
    assert found[1, "hidden_task1.weight"][0]["asides"] == ["grad zero"]
    assert found[0, "hidden_task2.weight"][0]["asides"] == []  # "no gradient" says it already
    assert (sent["count"], sent["first"], sent["alarms"]) == (2, 0, [[1, 1]])
    first, second = sent["steps"]
    assert (first["warns"], second["warns"]) == ([], [0])
    assert sent["warns"][0]["cure"] == FROZEN_BUT_MOVED.cure
    assert (second["moved"], second["total"], second["lrs"]) == (3, 3, {"0.0": "0.1"})


def test_every_reason_has_its_letter_and_special_numbers_survive():
    odd = [tensor(reason.value, reason, 0.1) for reason in Reason]
    odd += [tensor("from zero", ratio=1.0, weight_norm=0.0), tensor("nan", ratio=math.nan, moved=True)]
    odd += [tensor("counter", Reason.FORWARD, 3.0, kind="buffer", dtype="int64")]
    odd += [tensor("backwards", ratio=0.1, parts=Parts(1.0, 0.5, 0.0, -1.0, 4, 12))]
    odd += [tensor("hardly its gradient", ratio=0.1, parts=Parts(0.005, 1.0, 0.0, -0.5, 4, 4))]
    sent = window([step(*odd)])
    found = rows(sent)
    assert {facts["reason"] for facts, _, _ in found.values()} == set(sent["letters"])
    assert found[0, "from zero"][1] == math.inf
    assert math.isnan(found[0, "nan"][1])
    assert (found[0, "counter"][0]["counter"], found[0, "counter"][1]) == (True, 3.0)
    facts, _, shares = found[0, "backwards"]
    assert "against its gradient" in facts["asides"]
    assert (facts["sampled"], shares) == (True, (67, 33, 0))
    assert found[0, "hardly its gradient"][2] == (254, 100, 0)  # not nothing, and less than one per cent
    size(sent)  # is JSON: no NaN among the plain data


def test_tensors_that_come_and_go():
    steps = [step(tensor("a"), tensor("b")), step(tensor("a"), tensor("c\n"), index=1)]
    sent = window(steps)
    assert set(rows(sent)) == {(0, "a"), (0, "b"), (1, "a"), (1, "c\n")}
    assert [described[0] for described in sent["tensors"]] == ["a", "b", "c\\n"]


def test_it_reads_on_where_it_stopped():
    steps = [step(*network(6), index=i) for i in range(9)]
    overview = Overview()
    for upto in (0, 3, 3, 9):
        overview.read(steps[:upto])
        assert overview.window()["count"] == upto
    assert overview.window() | {"tensors": overview.tensors()} == window(steps)


@pytest.mark.parametrize(("tensors", "count"), [(4, 2000), (122, 60), (727, 9), (9000, 2)])
def test_it_keeps_to_its_budget(tensors, count):
    alarms = [Alarm(f"code{i}", "alarm", f"layer{i}", 0, "what " * 9, "why " * 9, "cure") for i in range(9)]
    steps = [step(*network(tensors), index=i, alarms=alarms) for i in range(count)]
    sent = window(steps)
    assert size(sent) <= BUDGET or len(sent["steps"]) == 1
    assert len(sent["steps"]) <= LONGEST
    assert sent["first"] + len(sent["steps"]) == count  # the newest are there
    middle = window(steps, around=count // 2)
    assert middle["first"] <= count // 2 < middle["first"] + len(middle["steps"])
    assert window(steps, around=0)["first"] == 0
    assert len(sent["steps"]) > 4 or tensors == 9000


def test_nothing_recorded_yet():
    sent = window([])
    assert (sent["count"], sent["steps"], sent["rows"], sent["alarms"]) == (0, [], b"", [])


def test_alarms_of_steps_that_are_not_sent_are_marked_too():
    alarm = [Alarm("code", "alarm", "layer0", 0, "what", "why", "cure")]
    notice = [Alarm("code", "notice", "layer0", 0, "what", "why", "cure")]
    steps = [step(*network(200), index=i, alarms=alarm if i in (3, 4, 5, 90) else notice) for i in range(99)]
    sent = window(steps)
    assert sent["first"] > 5
    assert sent["alarms"] == [[3, 5], [90, 90]]
