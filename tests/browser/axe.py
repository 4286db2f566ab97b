"""axe-core in a page that is open: what it finds wrong with what we draw, in lines to read.

axe-core is no part of the repository. npm fetches it once into `.cache`, which git ignores; from then on
no network is needed. What was fetched is used only if it is, byte for byte, what this file expects.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab import Lesson

VERSION = "4.14.1"
INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
"""Of the package's tarball, as `npm view axe-core@VERSION dist.integrity` says it."""

CACHE = Path(__file__).resolve().parents[2] / ".cache"
FETCH_TIMEOUT = 120

SERIOUS = ("serious", "critical")

# Before the window is made as high as the notebook: opened folds make that higher.
OPEN_FOLDS = """include => {
    for (const selector of include)
        for (const folded of document.querySelectorAll(`${selector} details`)) folded.open = true;
}"""

# axe judges what a reader can see, so JupyterLab's body, which hides its overflow and has no height, gets
# one. What axe leaves undecided about contrast counts as a fault, but for symbols, which it never judges:
# here they are text, and its own arithmetic decides.
RUN = """async ({include, exclude, impacts}) => {
    const axe = window.axe, here = include.filter(selector => document.querySelector(selector));
    if (!here.length) return {looked_at: false};
    document.body.style.minHeight = '100vh';
    const context = {include: here.map(selector => [selector])};
    if (exclude.length) context.exclude = exclude.map(selector => [selector]);
    const {violations, incomplete, inapplicable} = await axe.run(context, {elementRef: true});
    const line = (rule, node, impact, help, summary) => ({
        rule, impact, help, summary, target: node.target.flat().join(' '), html: node.html,
    });
    const found = violations.flatMap(rule => rule.nodes
        .filter(node => impacts.includes(node.impact))
        .map(node => line(rule.id, node, node.impact, rule.help, node.failureSummary)));
    axe.setup();
    for (const node of incomplete.find(rule => rule.id === 'color-contrast')?.nodes ?? []) {
        const [{data, message}] = node.any;
        if (!['nonBmp', 'shortTextContent'].includes(data?.messageKey)) {
            found.push(line('color-contrast', node, 'undecided', 'Contrast must be known', message));
            continue;
        }
        const under = axe.commons.color.getBackgroundColor(node.element);
        const over = axe.commons.color.getForegroundColor(node.element, false, under);
        const contrast = axe.commons.color.getContrast(under, over);
        if (contrast < 4.5)
            found.push(line('symbol-contrast', node, 'serious', 'A symbol is text: it needs 4.5:1',
                `contrast ${contrast.toFixed(2)}, ${over.toHexString()} on ${under.toHexString()}`));
    }
    axe.teardown();
    document.body.style.minHeight = '';
    return {looked_at: true, saw_text: !inapplicable.some(rule => rule.id === 'color-contrast'), found};
}"""


class AxeMissing(Exception):
    """axe-core is not there and cannot be fetched; the message says how to get it."""


def script() -> str:
    """Read axe-core's script, fetching the package first where it is not there or is not whole.

    Raises
    ------
    AxeMissing
        If it must be fetched and npm is not there, or does not get it.
    ValueError
        If npm brings another package than the one that is expected.
    """
    package = CACHE / f"axe-core-{VERSION}.tgz"
    if not (package.is_file() and integrity(package) == INTEGRITY):
        fetch(package)
    with tarfile.open(package) as unpacked:
        found = unpacked.extractfile("package/axe.min.js")
        assert found is not None  # the tarball is the one we know
        return found.read().decode("utf-8")


def integrity(file: Path) -> str:
    """Give a file's checksum in the form in which npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode("ascii")


def fetch(package: Path) -> None:
    """Fetch the package with npm and, if it is the expected one, put it into its place."""
    npm = shutil.which("npm")
    how = "install npm (on Debian or Ubuntu: sudo apt install npm) and run the tests once with a network"
    if npm is None:
        raise AxeMissing(f"needs axe-core {VERSION}, and there is no npm to fetch it: {how}")
    package.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=package.parent) as scratch:  # two tests may fetch at once
        command = [npm, "pack", f"axe-core@{VERSION}", "--pack-destination", scratch]
        try:
            subprocess.run(
                command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=FETCH_TIMEOUT, check=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise AxeMissing(
                f"npm did not fetch axe-core {VERSION} in {FETCH_TIMEOUT} s; check the network"
            ) from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip()[-1000:]
            raise AxeMissing(
                f"npm did not fetch axe-core {VERSION}; check the network. It said:\n{said}"
            ) from None
        [fetched] = Path(scratch).glob("*.tgz")
        if integrity(fetched) != INTEGRITY:
            raise ValueError(
                f"npm brought {fetched.name} with {integrity(fetched)}, expected {INTEGRITY}: "
                "not the package that these tests know"
            )
        fetched.replace(package)


def faults(lesson: Lesson, include: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """List what axe-core calls serious or critical in parts of an open notebook, alike faults once.

    Parameters
    ----------
    lesson
        Its page gets axe-core put in, by no request of the page.
    include, exclude
        CSS selectors of the parts to look at, and of parts in them to leave out.

    Raises
    ------
    AssertionError
        If no element matches ``include``, or axe-core sees no text there: then little has been checked.
    AxeMissing
        See `script`.
    """
    if not lesson.page.evaluate("() => Boolean(window.axe)"):
        lesson.page.evaluate(script())
    asked = {"include": list(include), "exclude": list(exclude), "impacts": SERIOUS}
    lesson.evaluate(OPEN_FOLDS, list(include))
    with lesson.all_in_view():
        answer = lesson.evaluate(RUN, asked)
    assert answer["looked_at"], f"nothing in the page matches {', '.join(include)}"
    assert answer["saw_text"], f"axe-core sees no text in {', '.join(include)}: is it hidden?"
    alike: dict[tuple[str, ...], list[str]] = {}
    for fault in answer["found"]:
        kind = (fault["impact"], fault["rule"], fault["help"], fault["html"], fault["summary"])
        alike.setdefault(kind, []).append(fault["target"])
    return [_in_words(*kind, targets) for kind, targets in alike.items()]


def _in_words(impact: str, rule: str, problem: str, html: str, summary: str, targets: list[str]) -> str:
    more = f" (and {len(targets) - 1} more like it)" if len(targets) > 1 else ""
    lines = [f"{impact} {rule}: {problem}", targets[0] + more, html, *map(str.strip, summary.splitlines())]
    return "\n  ".join(lines)
