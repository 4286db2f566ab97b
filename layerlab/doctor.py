"""Look over an installation and say what is broken, why, and the command that cures it.

It works when torch is broken or absent: nothing heavy is imported here. Every import that may fail, or
take the whole process down with it, is tried in a process of its own (pooch, which knows where downloads
go, once more in this one).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from layerlab.data.places import cache_folder

MINIMUM = {
    "torch": "2.6",
    "torchvision": "0.21",
    "numpy": "1.26",
    "PIL": "10",
    "matplotlib": "3.8",
    "sklearn": "1.4",
    "ipywidgets": "8.1",
    "anywidget": "0.9.14",
    "jupyterlab": "4.2",
    "filelock": "3.12",
    "pooch": "1.8",
    "tqdm": "4.66",
}
"""Oldest versions that the lessons are written for, by what is imported: those `pyproject.toml` asks for."""

PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""What is installed by another name than it is imported by."""

MINIMUM_PYTHON = (3, 10)
ROOM_NEEDED = 2 * 10**9
"""Bytes that the optional downloads (images, pretrained weights) need with some to spare."""

IMPORT_TIMEOUT = 180
"""Seconds. A first import of torch from a slow disk takes tens of seconds, never minutes."""

PAIR = ("torch", "torchvision")
BROKEN_PAIR = re.compile(r"operator torchvision::\w+ does not exist|torchvision.*undefined symbol", re.DOTALL)
"""What importing torchvision says when its compiled part was built for another torch."""

CHROMIUM_COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_MAC_APPS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    detail: str
    cure: str = ""
    """What to do about it: a command, or one sentence. Empty when all is well."""
    needed: bool = True
    """Whether a learner needs it: if not, a finding that is not `ok` is a hint."""


@dataclass(frozen=True)
class Imported:
    """How an import went in a process of its own."""

    name: str
    facts: Mapping[str, Any]
    """Of an import that worked: ``version`` and ``file`` (or None), and what else was asked for."""
    error: str
    """Of one that did not: the exception, in one line. Empty when it worked."""


def try_import(name: str, facts: str = "") -> Imported:
    """Import a module in a new process of this interpreter.

    Parameters
    ----------
    name
        The module, named `module` in the expressions of `facts`.
    facts
        The inside of a dict display, such as ``"threads": module.get_num_threads()``.
    """
    code = (
        f"import json, {name} as module\n"
        "facts = {name: getattr(module, f'__{name}__', None) for name in ('version', 'file')}\n"
        f"if facts['version'] is not None: facts |= {{{facts}}}\n"
        "print('\\n' + json.dumps(facts))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return Imported(name, {}, f"no answer in {IMPORT_TIMEOUT} s")
    if done.returncode != 0:
        errors = re.findall(r"^[A-Za-z_][\w.]*(?:: .*|Error)$", done.stderr, re.MULTILINE)
        # Without one it was a crash; a negative status is its signal, −11 a segmentation fault.
        return Imported(name, {}, errors[-1] if errors else f"Python ended with status {done.returncode}")
    return Imported(name, json.loads(done.stdout.strip().splitlines()[-1]), "")


def release(version: str) -> tuple[int, ...]:
    """Read the numbers of a version: ``"2.13.0+cpu"`` is ``(2, 13, 0)``."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)  # pooch has a v
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def check_python(version: tuple[int, int, int] = sys.version_info[:3]) -> Finding:
    """Whether this Python is new enough."""
    detail = f"{'.'.join(map(str, version))} ({sys.executable})"
    if version >= MINIMUM_PYTHON:
        return Finding("Python", True, detail)
    least = ".".join(map(str, MINIMUM_PYTHON))
    return Finding("Python", False, detail, f"install Python {least} or newer, and layerlab into it")


def check_import(imported: Imported) -> Finding:
    """Whether a package that the lessons import is there, whole, and new enough."""
    least, called = MINIMUM[imported.name], PACKAGES.get(imported.name, imported.name)
    # torch and torchvision are compiled against each other: only ever upgrade the two together.
    cure = f"{sys.executable} -m pip install --upgrade {' '.join(PAIR) if called in PAIR else called}"
    if f"No module named '{imported.name}'" in imported.error:
        return Finding(called, False, f"not installed for {sys.executable}", cure)
    if imported.error:
        return Finding(called, False, f"cannot be imported: {imported.error}", cure)
    version, file = imported.facts["version"], imported.facts["file"]
    if version is None:  # a file or folder of the learner's own that comes first on the path
        where = file or f"a folder named {imported.name}"
        return Finding(called, False, f"{where} hides the real package", "rename that file or folder")
    if release(version) < release(least):
        return Finding(called, False, f"{version} is older than {least}", cure)
    return Finding(called, True, version.removeprefix("v"))


def check_torchvision(torchvision: Imported, torch_version: str, wants_torch: str) -> Finding:
    """Whether torchvision is there and was built for the torch that is installed.

    Parameters
    ----------
    torchvision
        How its import went.
    torch_version
        The torch that can be imported, build included: ``2.13.0+cpu``.
    wants_torch
        The torch that torchvision's metadata asks for, such as ``torch==2.13.0``; empty if it does not say.
    """
    found = check_import(torchvision)
    if BROKEN_PAIR.search(torchvision.error):
        return replace(found, detail=f"built for another torch than {torch_version}: {torchvision.error}")
    for sign, version in re.findall(r"(==|>=)\s*(\d+(?:\.\d+)*)", wants_torch):
        ours, theirs = release(torch_version), release(version)
        if ours < theirs if sign == ">=" else ours[: len(theirs)] != theirs:
            why = f"asks for torch{sign}{version}, but torch {torch_version} is installed"
            return Finding(
                "torchvision", False, why, f"{sys.executable} -m pip install --upgrade {' '.join(PAIR)}"
            )
    return found


def check_kernel() -> Finding:
    """Whether notebooks run in this very Python: the kernel that Jupyter calls ``python3``."""
    what, cure = "Jupyter kernel", f"{sys.executable} -m ipykernel install --sys-prefix --name python3"
    find = "module.kernelspec.KernelSpecManager().get_kernel_spec('python3')"
    spec = try_import("jupyter_client", f"'argv': {find}.argv")
    if spec.error:
        cure = f"{sys.executable} -m pip install --upgrade ipykernel jupyterlab"
        return Finding(what, False, f"Jupyter finds no kernel named python3: {spec.error}", cure)
    program = spec.facts["argv"][0]
    if re.fullmatch(r"python(3(\.\d+)?)?", program):
        return Finding(what, True, "python3 is this Python")  # Jupyter reads a bare name as its own Python
    try:
        asked = subprocess.run(
            [program, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, timeout=60
        )
        prefix = asked.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        prefix = ""
    # The interpreter's file says little: two environments may share it. The prefix is the environment.
    if prefix and os.path.realpath(prefix) == os.path.realpath(sys.prefix):
        return Finding(what, True, f"python3 is this Python ({program})")
    return Finding(what, False, f"python3 runs {program}, another Python than {sys.executable}", cure)


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome, or None. The variable ``LAYERLAB_CHROMIUM`` comes before a search."""
    told = os.environ.get("LAYERLAB_CHROMIUM")
    if told:
        return shutil.which(told)
    found = (shutil.which(name) for name in (*CHROMIUM_COMMANDS, *CHROMIUM_MAC_APPS))
    return next((path for path in found if path), None)


def check_chromium() -> Finding:
    """Whether the browser tests can run; lessons open in whatever browser is there."""
    path = find_chromium()
    if path:
        return Finding("Chromium", True, path, needed=False)
    told = os.environ.get("LAYERLAB_CHROMIUM")
    detail = (
        f"LAYERLAB_CHROMIUM={told} is no program" if told else "not found; only the browser tests need it"
    )
    cure = "install Chromium or Chrome, or set LAYERLAB_CHROMIUM to its path"
    return Finding("Chromium", False, detail, cure, needed=False)


def downloads() -> Path:
    """The folder that downloads go to, or the one above it that is there already."""
    try:
        folder = cache_folder().absolute()
    except Exception:  # pooch, which knows the system's place for them, is broken: said elsewhere
        folder = Path.home()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def check_disk(folder: Path, free: int | None = None) -> Finding:
    """Whether there is room for the optional downloads; `free` (bytes) is measured unless given."""
    free = shutil.disk_usage(folder).free if free is None else free
    detail = f"{free / 1e9:.1f} GB free for downloads (in {folder})"
    if free >= ROOM_NEEDED:
        return Finding("disk", True, detail, needed=False)
    cure = f"make room: images and pretrained weights want {ROOM_NEEDED / 1e9:.0f} GB"
    return Finding("disk", False, detail, cure, needed=False)


def describe_device(torch: Imported) -> Finding:
    """Threads and GPU, for information: every lesson runs on a CPU."""
    gpu = f"GPU {torch.facts['gpu']}" if torch.facts["gpu"] else "no GPU, none is needed"
    return Finding("device", True, f"{torch.facts['threads']} threads, {gpu}", needed=False)


def torch_wanted() -> str:
    """Read which torch the installed torchvision's metadata asks for; empty if it does not say."""
    try:
        wanted = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return ""
    return next((line for line in wanted if re.match(r"torch\b", line)), "")


def examine() -> Iterator[Finding]:
    """Every check, in the order in which one rests on another."""
    yield check_python()
    gpu = "module.cuda.get_device_name() if module.cuda.is_available() else None"
    torch = try_import("torch", f"'threads': module.get_num_threads(), 'gpu': {gpu}")
    found = check_import(torch)
    yield found
    if found.ok:
        yield describe_device(torch)
        yield check_torchvision(try_import("torchvision"), torch.facts["version"], torch_wanted())
    for name in MINIMUM:
        if name not in PAIR:
            yield check_import(try_import(name))
    yield check_kernel()
    yield check_chromium()
    yield check_disk(downloads())


def report(findings: Iterator[Finding], say: Callable[[str], object] = print) -> int:
    """Say the findings as they come.

    Returns
    -------
    The exit status: 1 if something that a learner needs is broken, else 0.
    """
    broken = []
    for finding in findings:
        mark = "ok    " if finding.ok else "BROKEN" if finding.needed else "hint  "
        say(f"{mark}  {finding.what}: {finding.detail}")
        if finding.cure:
            say(f"        cure: {finding.cure}")
        if finding.needed and not finding.ok:
            broken.append(finding.what)
    say(f"Broken: {', '.join(broken)}." if broken else "All that the lessons need is there.")
    return 1 if broken else 0
