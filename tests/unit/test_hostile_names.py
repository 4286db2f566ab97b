"""Names that mean something to HTML, a terminal, matplotlib or Python, through all that shows them."""

import ast
import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import layerlab as ll
from layerlab.auditing import audit
from layerlab.experiments.by_group import moves_by_group
from layerlab.lessons_support.two_witnesses import side_by_side
from layerlab.training.ranks import compare_ranks
from layerlab.widgets.freeze_panel import FreezePanel

NAMES = {
    "HTML": "<img src=x onerror=alert(1)>",
    "script": "</script><script>alert(1)</script>",
    "entity": "&lt;b&gt;&#x3C;",
    "quotes": "\"'`it's`'\"",
    "line breaks": "one\ntwo\r\nthree\x1b[31m",
    "right to left": "\u202eevil\u2066\u200f",
    "wide": "重み🔒é" + "e\u0301" * 3,
    "mathtext": "$\\frac{1}{0$",
    "glob": "[a-z]*?",
    "markdown": "| a | **b** |",
    "very long": "x" * 2000,
    "code": "weight'); raise SystemExit('",
    "format": "{0}{name}%s%(a)d\\n",
    "keyword": "class",
    "space": " ",
    "number": "00",
}
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
DANGEROUS = {"script", "img", "style", "iframe", "object", "link", "svg"}


class Tags(HTMLParser):
    """Every tag with its attributes, and whether each is closed."""

    EMPTY = frozenset({"br", "hr", "input", "col"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes, self.words = [], set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= {key for key, _ in attrs}
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def net_of(name):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    return nn.ModuleDict({name: body, "head": nn.Linear(3, 2)})


def step(net, optimizer, name):
    optimizer.zero_grad()
    net["head"](net[name](torch.ones(4, 3))).sum().backward()
    optimizer.step()


def check_html(html):
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    assert not tags.seen & DANGEROUS
    assert not {a for a in tags.attributes if a.startswith("on")}
    assert not UNSEEN.search(html.replace("\n", ""))
    return "".join(tags.words)


def check_text(text):
    assert not UNSEEN.search(text)
    assert " at 0x" not in text


def check_shown(thing):
    """Text, HTML, and what a notebook gets; nothing in them acts, reorders or breaks a line."""
    check_text(repr(thing))
    html = thing._repr_html_()
    check_html(html)
    return repr(thing), html


@pytest.fixture(params=NAMES.values(), ids=list(NAMES))
def name(request):
    return request.param


@pytest.fixture
def run(name):
    net = net_of(name)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    with ll.watch(net, optimizer, keep="all") as ledger:
        step(net, optimizer, name)
        net[name].requires_grad_(False)  # its statistics move on: an alarm names it
        step(net, optimizer, name)
    return net, optimizer, ledger


def test_the_ledger(run, name):
    net, _, ledger = run
    text, _ = check_shown(ledger)
    assert ledger.alarms
    assert {row["name"] for row in ledger.rows()} >= {f"{name}.0.weight", "head.bias"}
    assert ledger[-1][f"{name}.0.weight"].info.name == f"{name}.0.weight"
    assert [named.name for named in ll.find(net, f"{name}.0.bias")] == [f"{name}.0.bias"]
    assert len(text) < 20_000


def test_the_views_of_a_ledger(run, name):
    ledger = run[2]
    view = ll.StepView(ledger)
    check_shown(view)
    view.tensor = f"{name}.0.weight"
    view.close()
    values = ledger.values(0, f"{name}.0.weight")
    picture = ll.Picture(values.before, values.after, title=name)
    check_text(repr(picture))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        assert picture._repr_png_()[:4] == b"\x89PNG"


def test_the_audit_and_its_cures(run, name):
    net, optimizer, ledger = run
    net[name][0] = nn.Linear(3, 3)
    net[name].requires_grad = False
    found = audit(net, optimizer)
    assert {"layer-replaced", "flag-on-module"} <= set(found.codes)
    check_shown(found)
    json.dumps(found.rows())
    for finding in found:
        ast.parse(finding.cure)
    check_shown(side_by_side(found, ledger))


def test_cures_reach_what_they_name(name):
    """Whatever it is called, the cure's expression is that very module."""
    net = net_of(name)
    net[name].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    [finding] = [f for f in audit(net, optimizer) if f.code == "frozen-statistics"]
    exec(finding.cure, {"model": net, "net": net})
    assert not net[name][1].training


def test_freezing_and_its_code(name):
    net = net_of(name)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    handle = ll.freeze(net, f"{name}.0")
    check_text(repr(handle))
    handle.release()
    panel = FreezePanel(net, optimizer)
    panel.freeze(f"{name}.0")
    assert not net[name][0].weight.requires_grad
    check_shown(panel)
    twin = net_of(name)
    exec(panel.code, {"model": twin, "net": twin, "optimizer": torch.optim.SGD(twin.parameters(), lr=0.1)})
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in net.parameters()]
    panel.close()


def test_groups_and_unfreezing(name):
    net = net_of(name)
    groups = ll.param_groups(net, {f"{name}.0.weight": {"lr": 0.1}, "*": {}}, no_decay="norm and bias")
    check_shown(groups)
    ast.parse(groups.as_code())
    optimizer = torch.optim.SGD(groups, lr=0.2)
    net[name].requires_grad_(False)
    plan = ll.Unfreeze(net, optimizer, {1: {f"{name}.0": 0.3}})
    check_shown(plan)


def test_what_a_learner_is_asked(run, name):
    net, _, ledger = run
    predict = ll.Predict(net, f"Does {name} move?", ticked=[f"{name}.0.weight"])
    check_shown(predict)
    score = predict.check(ledger[-1])
    check_shown(score)
    verdict = ll.Check(name).moved(ledger[-1], f"{name}.0.weight").no_alarms(ledger).verdict()
    assert not verdict.passed
    check_shown(verdict)
    predict.close()


def test_a_near_name_in_an_error(name):
    with pytest.raises(ValueError, match="matches nothing") as raised:
        ll.find(net_of(name), f"{name}.0.wieght")
    check_text(str(raised.value))


def test_ranks_and_groups_of_examples(run, name):
    net = run[0]
    records = []
    for rank in range(2):
        twin = net_of(name)
        other = torch.optim.SGD(twin.parameters(), lr=0.1 + rank)
        with ll.watch(twin, other) as own:
            ranks = ll.Ranks(own, twin)
            step(twin, other, name)
        records.append(replace(ranks.record, rank=rank))
    comparison = compare_ranks(records)
    assert f"{name}.1.bias" in comparison.apart
    check_shown(comparison)
    net[name].requires_grad_(True)
    loss = {name: lambda model: model["head"](model[name](torch.ones(4, 3))).sum()}
    check_shown(moves_by_group(net, torch.optim.SGD(net.parameters(), lr=0.1), loss))
