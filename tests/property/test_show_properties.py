"""What holds for every step and every tensor that can be shown, whatever its names and numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from layerlab.printable import printable
from layerlab.record import Alarm, Parts, Reason, Step, TensorInfo, TensorStep
from layerlab.show import describe_step, describe_steps, short, table
from layerlab.show.grid import LARGEST, grid
from layerlab.show.html import html
from layerlab.show.picture import colours
from layerlab.show.text import text
from layerlab.show.words import blocks, cut, width

STAYED = [r for r in Reason if r.value in {
    "not in the optimizer", "no gradient", "zero gradient", "lr = 0", "below float resolution",
    "step skipped", "untouched",
}]  # fmt: skip
sizes = st.floats(min_value=0) | st.sampled_from([0.0, math.nan])
nasty = st.sampled_from(
    ["<script>alert(1)</script>", "a\nb", "\u202eevil", '" onmouseover="x', "a&amp;b", "层.权重", "x" * 300]
)
names = (
    nasty
    | st.text(min_size=1, max_size=12)
    | st.from_regex(r"layer[0-3]\.[0-9]\.(weight|bias)", fullmatch=True)
)
parts = st.builds(Parts, sizes, sizes, sizes, st.floats(-1, 1), st.integers(1, 9), st.integers(9, 20))


@st.composite
def tensors(draw, name):
    moved = draw(st.booleans())
    buffer = draw(st.booleans())
    info = TensorInfo(
        name, (name,), "buffer" if buffer else "parameter", (2,),
        draw(st.sampled_from(["torch.float32", "torch.int64"])), 2, name.rpartition(".")[0], draw(names),
    )  # fmt: skip
    return TensorStep(
        info=info,
        training=draw(st.booleans()),
        requires_grad=draw(st.booleans()),
        frozen=draw(st.sampled_from([None, None, "requires_grad", "lr_zero"])),
        grad=draw(st.sampled_from(["none", "zero", "nonzero", "nonfinite"])),
        grad_max=draw(sizes),
        grad_stale=draw(st.booleans()),
        optimizer=0,
        group=0,
        lr=None if buffer else draw(st.sampled_from([0.0, 0.1])),
        weight_decay=None,
        state_steps=None,
        moved=moved,
        moved_outside=draw(st.booleans()),
        delta_norm=draw(sizes) if moved else 0.0,
        delta_max=draw(sizes) if moved else 0.0,
        weight_norm=draw(sizes),
        reason=draw(st.sampled_from([r for r in Reason if r not in STAYED] if moved else STAYED)),
        parts=draw(st.none() | parts),
    )


@st.composite
def steps(draw, most=30):
    """A step of up to 30 tensors, made of a few kinds so that many are alike."""
    kinds = draw(st.lists(tensors("kind"), min_size=1, max_size=4))
    chosen = draw(st.lists(names, unique_by=printable, max_size=most))
    made = {}
    for name in chosen:
        like = draw(st.sampled_from(kinds))
        facts = {f: getattr(like, f) for f in TensorStep.__slots__}
        module = name.rpartition(".")[0]
        facts["info"] = replace(like.info, name=name, names=(name,), module=module)
        made[name] = TensorStep(**facts)
    alarmed = draw(st.lists(st.sampled_from(chosen), unique=True, max_size=3)) if chosen else []
    alarms = [
        Alarm("code", draw(st.sampled_from(["alarm", "notice"])), n, 0, draw(names), draw(names), draw(names))
        for n in alarmed
    ]
    return Step(draw(st.integers(0, 9)), 0, "SGD", made, draw(st.booleans()), alarms)


class Page(HTMLParser):
    """Checks that tags balance, and collects the text, cell by cell, without what is folded away."""

    void = frozenset({"br"})

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.everything, self.seen = [], Counter(), "", ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        assert {key for key, _ in attrs} <= {"title", "scope", "align", "style", "aria-hidden"}
        if tag in self.void:
            self.seen += " "
        else:
            self.open.append(tag)
        if tag not in {"code", "span", "samp", "strong", "small"}:
            self.seen += " "

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.everything += data
        if "details" not in self.open or "summary" in self.open:
            self.seen += data


@given(steps())
def test_html_is_balanced_and_every_name_is_escaped_and_shown(step):
    source = html(describe_step(step))
    page = Page(source)
    assert set(page.tags) <= {
        "div", "p", "br", "table", "caption", "thead", "tbody", "tr", "th", "td", "code", "samp", "span",
        "strong", "small", "details", "summary",
    }  # fmt: skip
    assert "<script" not in source
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", source)
    for name in step:
        assert printable(name) in page.everything


@given(steps())
def test_no_tensor_is_lost_in_a_step(step):
    shown = describe_step(step).tables[0]
    rows = [name for row in shown.rows for name in row.names]
    folded = [name for fold in shown.folds for name in fold.names]
    assert Counter(rows + folded) == Counter(map(printable, step))
    for row in shown.rows:
        count = re.search(r": (\d+) (tensors|buffers)$", row.cells[0].text)
        if len(row.names) > 1:
            assert count
            assert int(count[1]) == len(row.names)
    for fold in shown.folds:
        assert f"{len(fold.names)} " in fold.summary
        assert all(not step[name].moved for name in step if printable(name) in fold.names)


@settings(max_examples=40)
@given(st.lists(steps(most=25), min_size=2, max_size=15))
def test_no_tensor_is_lost_in_a_ledger(many):
    matrix = describe_steps(many, many[0].alarms).tables[0]
    rows = [name for row in matrix.rows for name in row.names]
    assert Counter(rows) == Counter({printable(name) for step in many for name in step})
    assert all(len(row.cells) == len(matrix.columns) for row in matrix.rows)
    Page(html(describe_steps(many, [])))


@given(steps())
def test_what_an_alarm_names_is_never_folded(step):
    rows = describe_step(step).tables[0].rows
    for alarm in step.alarms:
        if alarm.level == "alarm":
            (row,) = [row for row in rows if printable(alarm.name) in row.names]
            assert row.level == "alarm"
            assert row.names == (printable(alarm.name),), "at most three alarms: no crowd"


@given(steps())
def test_unlike_tensors_never_share_a_row(step):
    by_name = {printable(name): t for name, t in step.items()}
    for row in describe_step(step).tables[0].rows:
        alike = [by_name[name] for name in row.names]
        assert len({(t.moved, t.reason, t.frozen, t.grad, t.grad_stale, t.training) for t in alike}) == 1


@given(steps())
def test_text_and_html_say_the_same(step):
    description = describe_step(step)
    assume(all(len(printable(name)) < 20 for name in step))  # text cuts longer names
    plain = Counter("".join(text(description).split()))
    page = Page(html(description))
    marked = re.sub(r"all \d+ names", "", page.seen)
    assert Counter("".join(marked.split())) == plain


@given(steps())
def test_rendering_is_deterministic_and_has_no_address(step):
    once, again = describe_step(step), describe_step(step)
    assert text(once) == text(again)
    assert html(once) == html(again)
    assert " at 0x" not in text(once) + html(once)


@given(st.floats(-1e300, 1e300))
def test_short_is_close_and_short(value):
    said = short(value)
    assert len(said.lstrip("-")) <= 8
    assert math.isclose(float(said), value, rel_tol=0.0501, abs_tol=0)
    magnitude = abs(float(said))
    assert ("e" in said) == (magnitude != 0 and not 1e-3 <= magnitude < 1e4)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_longer_bar_is_never_drawn_shorter(a, b):
    eighths = " ▏▎▍▌▋▊▉█"
    low, high = (sum(eighths.index(c) for c in blocks(x)) for x in sorted((a, b)))
    assert 1 <= low <= high <= 96


@given(st.text(max_size=60).map(printable), st.integers(3, 60))
def test_cut_keeps_both_ends(name, columns):
    said = cut(name, columns)
    assert width(said) <= max(columns, 0)
    if width(name) <= columns:
        assert said == name
    else:
        head, _, tail = said.partition("…")
        assert name.startswith(head)
        assert name.endswith(tail)


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(list(Reason))
)


@given(st.lists(st.dictionaries(st.text(max_size=5), values, max_size=4), max_size=4))
def test_any_table_can_be_shown(rows):
    shown = table(rows, title="<b>")
    assert Page(shown._repr_html_()).tags["b"] == 0
    assert repr(shown) == repr(table(rows, title="<b>"))


# --- pictures ---------------------------------------------------------------------------------------------

arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=90),
    elements=st.floats(-4, 4, width=32),
    fill=st.just(1.0),
).filter(lambda a: a.size < 20_000)


@given(arrays, st.data())
def test_a_moved_element_is_never_hidden(before, data):
    """One element moves by the least possible amount: one cell shows it, with its own values."""
    at = tuple(data.draw(st.integers(0, n - 1)) for n in before.shape)
    after = before.copy()
    after[at] = np.nextafter(after[at], np.float32(9))
    g = grid(before, after)
    assert max(g.delta.shape) <= LARGEST
    assert g.count == 1
    assert g.moved.sum() == 1
    assert g.before[g.moved] == before[at]
    assert g.after[g.moved] == after[at]
    white = (colours(g.delta, float(np.abs(g.delta).max()), g.moved) == 1).all(axis=2)
    assert (white == ~g.moved).all()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_each_cell_shows_the_largest_change_among_its_elements(seed, share):
    random = np.random.default_rng(seed)
    before = random.integers(-8, 8, (128, 192)).astype(float)
    after = before + random.integers(-9, 9, before.shape) * (random.random(before.shape) < share)
    g = grid(before, after)
    blocks_of = np.abs(after - before).reshape(64, 2, 64, 3)
    assert (np.abs(g.delta) == blocks_of.max(axis=(1, 3))).all()
    assert (g.moved == (before != after).reshape(64, 2, 64, 3).any(axis=(1, 3))).all()
    assert (g.after - g.before == g.delta).all()
    assert g.count == (before != after).sum()


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=6), elements=st.floats(width=32)))
def test_a_tensor_compared_with_itself_did_not_move(values):
    g = grid(values, values.copy())
    assert (g.count, g.moved.any(), g.delta.any()) == (0, False, False)
