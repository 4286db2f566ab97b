"""`layerlab doctor` against installations that are broken in the ways learners meet.

The broken packages are fakes, put first on the path of real Python processes.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from layerlab import doctor

ROOT = Path(__file__).resolve().parents[2]

TORCH = """
__version__ = "{version}"
def get_num_threads(): return 3
class cuda:
    is_available = staticmethod(lambda: False)
"""
NMS = "operator torchvision::nms does not exist"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Install fake packages for this process and those that a test starts."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(site)  # metadata is read in this process

    def install(name, source, version="", requires=""):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(source)
        if version:
            info = site / f"{name}-{version}.dist-info"
            info.mkdir()
            wants = f"Requires-Dist: {requires}\n" if requires else ""
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wants}"
            (info / "METADATA").write_text(text)

    return install


def run_doctor(cwd):
    """Run it as a learner does; returns its exit status and what it said of each thing."""
    done = subprocess.run(
        [sys.executable, "-m", "layerlab.cli", "doctor"], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.stderr == ""
    said = re.findall(r"^(ok|BROKEN|hint) +([^:]+): (.*)\n(?: +cure: (.*))?", done.stdout, re.MULTILINE)
    return done.returncode, {what: (mark, detail, cure) for mark, what, detail, cure in said}


def test_all_is_well_where_the_tests_run(tmp_path):
    status, said = run_doctor(tmp_path)
    assert status == 0
    needed = (
        "Python",
        "torch",
        "torchvision",
        "scikit-learn",
        "pooch",
        "ipywidgets",
        "jupyterlab",
        "Jupyter kernel",
    )
    assert {said[what][0] for what in needed} == {"ok"}
    assert "threads" in said["device"][1]


def test_torchvision_built_for_another_torch(fake, tmp_path):
    fake("torch", TORCH.format(version="2.13.0+cpu"))
    fake("torchvision", f"raise RuntimeError('{NMS}')", "0.28.0", "torch (==2.13.0)")
    status, said = run_doctor(tmp_path)
    mark, detail, cure = said["torchvision"]
    assert (status, mark) == (1, "BROKEN")
    assert "built for another torch than 2.13.0+cpu" in detail
    assert NMS in detail
    assert cure == f"{sys.executable} -m pip install --upgrade torch torchvision"
    assert said["torch"][0] == "ok"


@pytest.mark.parametrize(
    ("wants", "torch", "ok"),
    [
        ("torch==2.13.0", "2.15.0", False),
        ("torch (==2.13.0)", "2.13.0+cpu", True),
        ("torch>=2.14.0", "2.13.1", False),
        ("torch>=2.14.0", "2.15.0+cu130", True),
        ("torch", "2.15.0", True),
    ],
)
def test_torchvision_that_asks_for_another_torch(fake, wants, torch, ok):
    fake("torchvision", "__version__ = '0.28.0'", "0.28.0", wants)
    found = doctor.check_torchvision(doctor.try_import("torchvision"), torch, doctor.torch_wanted())
    assert found.ok is ok
    assert ("--upgrade torch torchvision" in found.cure) is not ok
    assert (f"torch {torch} is installed" in found.detail) is not ok


def test_missing_torch_and_the_rest_still_looked_at(fake, tmp_path):
    fake("torch", "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    status, said = run_doctor(tmp_path)
    mark, detail, cure = said["torch"]
    assert (status, mark) == (1, "BROKEN")
    assert "not installed" in detail
    assert "--upgrade torch torchvision" in cure
    assert "torchvision" not in said  # it would only repeat torch's complaint
    assert said["jupyterlab"][0] == "ok"


@pytest.mark.parametrize(
    ("source", "said_of_it"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with status -11"),
        ("raise ImportError('libcudart.so: no such file')", "ImportError: libcudart.so: no such file"),
        (TORCH.format(version="1.13.1"), "1.13.1 is older than 2.6"),
        ("", "hides the real package"),
    ],
    ids=["crashing", "raising", "old", "hidden"],
)
def test_broken_torch(fake, source, said_of_it):
    fake("torch", source)
    found = doctor.check_import(doctor.try_import("torch", "'threads': module.get_num_threads()"))
    assert not found.ok
    assert found.needed
    assert said_of_it in found.detail
    assert found.cure


def test_own_file_with_the_package_s_name_is_named(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("loss = 1\n")
    monkeypatch.chdir(tmp_path)
    found = doctor.check_import(doctor.try_import("torch"))
    assert not found.ok
    assert str(tmp_path / "torch.py") in found.detail
    assert "rename" in found.cure


def test_import_that_never_ends_is_given_up(fake, monkeypatch):
    fake("slow", "import time; time.sleep(600)")
    monkeypatch.setattr(doctor, "IMPORT_TIMEOUT", 0.2)
    assert doctor.try_import("slow").error == "no answer in 0.2 s"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Make Jupyter find this program first when it looks for the kernel python3."""

    def install(program):
        folder = tmp_path / "kernels" / "python3"
        folder.mkdir(parents=True)
        argv = [str(program), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    return install


@pytest.mark.parametrize("program", ["python", sys.executable])
def test_kernel_in_this_python(kernel, program):
    kernel(program)
    assert doctor.check_kernel().ok


def test_kernel_in_another_python(kernel, tmp_path):
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho /elsewhere\n")
    other.chmod(0o755)
    kernel(other)
    found = doctor.check_kernel()
    assert not found.ok
    assert found.needed
    assert str(other) in found.detail
    assert "ipykernel install" in found.cure


def test_kernel_whose_python_is_gone(kernel, tmp_path):
    kernel(tmp_path / "removed" / "python")
    assert not doctor.check_kernel().ok


@pytest.fixture
def no_browser(tmp_path, monkeypatch):
    """Leave nothing to find."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LAYERLAB_CHROMIUM", raising=False)
    monkeypatch.setattr(doctor, "CHROMIUM_MAC_APPS", ())


def make_program(path):
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_missing_chromium_is_a_hint(no_browser):
    assert doctor.find_chromium() is None
    found = doctor.check_chromium()
    assert not found.ok
    assert not found.needed
    assert "LAYERLAB_CHROMIUM" in found.cure


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_chromium_on_the_path(no_browser, tmp_path, name):
    path = make_program(tmp_path / name)
    assert doctor.find_chromium() == path


def test_chromium_that_the_environment_names(no_browser, tmp_path, monkeypatch):
    make_program(tmp_path / "chromium")
    own = make_program(tmp_path / "my-browser")
    monkeypatch.setenv("LAYERLAB_CHROMIUM", own)
    assert doctor.find_chromium() == own
    monkeypatch.setenv("LAYERLAB_CHROMIUM", str(tmp_path / "none"))
    assert doctor.find_chromium() is None  # never silently another one than was asked for
    assert str(tmp_path / "none") in doctor.check_chromium().detail


def test_chromium_as_a_mac_application(no_browser, tmp_path, monkeypatch):
    path = make_program(tmp_path / "Google Chrome")
    monkeypatch.setattr(doctor, "CHROMIUM_MAC_APPS", (path,))
    assert doctor.find_chromium() == path


def test_a_package_that_is_imported_by_another_name(fake):
    fake("sklearn", "raise ModuleNotFoundError(\"No module named 'sklearn'\", name='sklearn')")
    found = doctor.check_import(doctor.try_import("sklearn"))
    assert "not installed" in found.detail
    assert found.cure.endswith("install --upgrade scikit-learn")


def test_a_broken_pooch_leaves_the_rest_looked_at(fake, tmp_path):
    fake("pooch", "raise OSError('no cache here')")
    status, said = run_doctor(tmp_path)
    assert status == 1
    assert said["pooch"][0] == "BROKEN"
    assert "OSError: no cache here" in said["pooch"][1]
    assert said["disk"][0] == "ok"


def test_room_is_measured_where_downloads_go(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERLAB_CACHE", str(tmp_path / "not" / "yet"))
    assert doctor.downloads() == tmp_path
    (tmp_path / "not" / "yet").mkdir(parents=True)
    assert doctor.downloads() == tmp_path / "not" / "yet"
    assert str(tmp_path) in doctor.check_disk(doctor.downloads()).detail


@pytest.mark.parametrize(("free", "ok"), [(1_999_999_999, False), (2_000_000_000, True)])
def test_little_room_is_a_hint(tmp_path, free, ok):
    found = doctor.check_disk(tmp_path, free)
    assert found.ok is ok
    assert not found.needed


@pytest.mark.parametrize(("version", "ok"), [((3, 9, 19), False), ((3, 10, 0), True), ((3, 14, 1), True)])
def test_python_version(version, ok):
    assert doctor.check_python(version).ok is ok


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2.13.0+cpu", (2, 13, 0)), ("2.15.0a0+git1", (2, 15, 0)), ("v1.9.0", (1, 9, 0)), ("unknown", ())],
)
def test_release(text, numbers):
    assert doctor.release(text) == numbers


def test_only_what_a_learner_needs_decides_the_status():
    fine = doctor.Finding("torch", True, "2.15.0")
    hint = doctor.Finding("Chromium", False, "not found", "install it", needed=False)
    broken = doctor.Finding("ipywidgets", False, "not installed", "install it")
    lines = []
    assert doctor.report(iter([fine, hint]), lines.append) == 0
    assert lines[1:3] == ["hint    Chromium: not found", "        cure: install it"]
    assert doctor.report(iter([fine, hint, broken]), lines.append) == 1
    assert lines[-1] == "Broken: ipywidgets."


def test_minimum_versions_are_those_of_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    asked = dict(re.findall(r'^  "([\w-]+)>=([\d.]+)"', text, re.MULTILINE))
    assert {doctor.PACKAGES.get(name, name): least for name, least in doctor.MINIMUM.items()}.items() <= (
        asked.items()
    )
    needed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    looked_at = {doctor.PACKAGES.get(name, name) for name in doctor.MINIMUM}
    # ipywidgets cannot be imported without traitlets.
    assert set(re.findall(r'"([\w-]+)>=', needed.group(1))) - {"traitlets"} <= looked_at
    assert f'requires-python = ">={".".join(map(str, doctor.MINIMUM_PYTHON))}"' in text
