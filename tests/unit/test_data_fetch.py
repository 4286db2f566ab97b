"""Downloads that go wrong in the ways downloads do, from a server in this process; no internet."""

import builtins
import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
import urllib.error

import pytest
import requests
from data_server import cut, halting, serving, start, status, unannounced, whole

from layerlab.data import fetch as fetching
from layerlab.data.causes import in_words
from layerlab.data.errors import DataError
from layerlab.data.fetch import fetch
from layerlab.data.places import cache_folder, data_folder, given, way_out

BODY = bytes(range(256)) * 2000
SUM = hashlib.sha256(BODY).hexdigest()
NAME = "photos.zip"
LOCK = f".{NAME}.lock"


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAYERLAB_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def lies_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def all_is_well(server, folder, **options):
    """The next call gets the file, and nothing else lies in the folder but its record and an empty lock."""
    server.answer = whole(BODY)
    assert fetch(f"{server.url}/photos", NAME, **options) == folder / NAME
    found = lies_in(folder)
    found.pop(LOCK, None)  # some systems remove it
    record = {} if "sha256" in options else {f"{NAME}.sha256": f"{SUM}  {NAME}\n".encode()}
    assert found == {NAME: BODY, **record}


def test_a_file_is_downloaded_once(server, folder, capfd):
    all_is_well(server, folder)
    all_is_well(server, folder)
    assert server.asked == ["/photos"]
    assert capfd.readouterr() == ("", "")


def test_a_known_checksum_needs_no_record(server, folder):
    all_is_well(server, folder, sha256=SUM)
    all_is_well(server, folder, sha256=SUM.upper())
    assert server.asked == ["/photos"]


def test_a_bar_is_shown_when_asked_for(server, folder, capfd):
    server.answer = whole(BODY)
    fetch(f"{server.url}/photos", NAME, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert NAME in err
    assert "512k/512k" in err  # 512,000 bytes


def no_space(monkeypatch):
    """The disk is full after the first piece that pooch writes."""

    class Full:
        def __init__(self, path, mode):
            self.file = builtins.open(path, mode)  # noqa: SIM115
            self.close, self.flush, self.pieces = self.file.close, self.file.flush, 0

        def write(self, piece):
            self.pieces += 1
            if self.pieces > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(piece)

    monkeypatch.setattr("pooch.downloaders.open", Full, raising=False)


def reject(path):
    assert path.read_bytes() == b"<html>Please log in"
    raise ValueError("not a zip archive")


FAULTS = {
    "not found": (status(404), "404 (Not Found)", {}),
    "server broken": (status(503), "503 (Service Unavailable)", {}),
    "own status": (status(599), "answered 599", {}),
    "cut off": (cut(BODY), "cut off", {}),
    "cut off, sum known": (cut(BODY), "cut off", {"sha256": SUM}),
    "wrong bytes": (whole(BODY[1:]), "wrong bytes came: their SHA-256 is ", {"sha256": SUM}),
    "log-in page": (whole(b"<html>Please log in"), "wrong bytes came: not a zip", {"check": reject}),
    "cut off unannounced": (unannounced(BODY[:99]), "wrong bytes", {"sha256": SUM}),
    "no space": (whole(BODY), "no space left", {}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_nothing_is_left_and_the_next_call_succeeds(fault, server, folder, monkeypatch):
    server.answer, words, options = FAULTS[fault]
    with monkeypatch.context() as patched:
        if fault == "no space":
            no_space(patched)
        with pytest.raises(DataError) as caught:
            fetch(f"{server.url}/photos", NAME, **options)
    said = str(caught.value)
    assert words in said
    for needed in (NAME, server.url, "LAYERLAB_DATA", str(folder)):
        assert needed in said
    assert set(lies_in(folder)) <= {LOCK}
    options.pop("check", None)
    all_is_well(server, folder, **options)
    assert len(server.asked) == 2


def test_a_cut_is_noticed_where_urllib3_takes_it_for_the_end(server, folder, monkeypatch):
    """As urllib3 1 does."""
    pieces = requests.Response.iter_content

    def lenient(self, *args, **options):
        self.raw.enforce_content_length = False
        return pieces(self, *args, **options)

    monkeypatch.setattr(requests.Response, "iter_content", lenient)
    server.answer = cut(BODY)
    with pytest.raises(DataError, match="cut off"):
        fetch(f"{server.url}/photos", NAME)
    all_is_well(server, folder)


def test_a_file_of_unannounced_length_is_taken(server, folder):
    server.answer = unannounced(BODY)
    assert fetch(f"{server.url}/photos", NAME).read_bytes() == BODY
    all_is_well(server, folder)


def test_a_redirection_is_followed(server, folder):
    def elsewhere(handler):
        if handler.path == "/moved":
            return whole(BODY)(handler)
        handler.send_response(302)
        handler.send_header("Location", "/moved")
        return handler.end_headers()

    server.answer = elsewhere
    assert fetch(f"{server.url}/photos", NAME).read_bytes() == BODY
    assert server.asked == ["/photos", "/moved"]


def test_an_announcement_that_is_no_number(server, folder):
    server.answer = lambda handler: start(handler, "many")
    with pytest.raises(DataError, match=NAME):
        fetch(f"{server.url}/photos", NAME)
    all_is_well(server, folder)


def test_it_asks_for_the_bytes_as_they_are(server, folder):
    def uncompressed(handler):
        return (whole(BODY) if handler.headers["Accept-Encoding"] == "identity" else status(406))(handler)

    server.answer = uncompressed
    assert fetch(f"{server.url}/photos", NAME).read_bytes() == BODY


def test_without_a_network_it_fails(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/photos"
    with pytest.raises(DataError, match="no network, or the server cannot be reached"):
        fetch(nobody, NAME)
    assert set(lies_in(folder)) <= {LOCK}


def test_a_server_that_falls_silent_is_not_waited_for(server, folder, monkeypatch):
    monkeypatch.setattr(fetching, "PATIENCE", (0.2, 0.2))
    halfway, go_on = threading.Event(), threading.Event()
    server.answer = halting(BODY, halfway, go_on)
    try:
        with pytest.raises(DataError, match="did not answer in time"):
            fetch(f"{server.url}/photos", NAME)
    finally:
        go_on.set()
    assert set(lies_in(folder)) <= {LOCK}
    all_is_well(server, folder)


def test_an_interrupt_leaves_nothing(server, folder):
    def interrupt(path):
        raise KeyboardInterrupt

    server.answer = whole(BODY)
    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/photos", NAME, check=interrupt)
    assert set(lies_in(folder)) <= {LOCK}
    all_is_well(server, folder)


@pytest.mark.parametrize("damaged", [b"", BODY[:-1], BODY + b"!"])
@pytest.mark.parametrize("options", [{}, {"sha256": SUM}], ids=["recorded", "known"])
def test_a_damaged_file_is_fetched_again(damaged, options, server, folder):
    all_is_well(server, folder, **options)
    (folder / NAME).write_bytes(damaged)
    all_is_well(server, folder, **options)
    assert len(server.asked) == 2


@pytest.mark.parametrize("record", [None, b"", b"\xff\xfe", b"no sum"])
def test_a_file_without_a_record_is_not_trusted(record, server, folder):
    all_is_well(server, folder)
    (folder / f"{NAME}.sha256").unlink()
    if record is not None:
        (folder / f"{NAME}.sha256").write_bytes(record)
    (folder / NAME).write_bytes(b"half of it")
    all_is_well(server, folder)
    assert len(server.asked) == 2


def test_a_file_that_changed_since_its_first_download_is_refused(server, folder):
    all_is_well(server, folder)
    (folder / NAME).unlink()
    server.answer = whole(b"other bytes")
    with pytest.raises(DataError, match=r"of the first download; if .* delete .*photos\.zip\.sha256"):
        fetch(f"{server.url}/photos", NAME)
    assert NAME not in lies_in(folder)
    all_is_well(server, folder)


IN_ANOTHER_PROCESS = """
import sys
from layerlab.data.fetch import fetch
print(fetch(sys.argv[1], sys.argv[2]))
"""


def start_fetching(server):
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, f"{server.url}/photos", NAME]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_download_one_file_once(server, folder):
    halfway, go_on = threading.Event(), threading.Event()
    server.answer = halting(BODY, halfway, go_on)
    both = [start_fetching(server), start_fetching(server)]
    assert halfway.wait(60)
    threading.Timer(0.5, go_on.set).start()  # time for the other to come to the lock
    said = [process.communicate(timeout=60) for process in both]
    assert said == [(f"{folder / NAME}\n", "")] * 2
    assert server.asked == ["/photos"]
    all_is_well(server, folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_killed_midway_leaves_nothing_that_lasts(server, folder):
    halfway, go_on = threading.Event(), threading.Event()
    server.answer = halting(BODY, halfway, go_on)
    with start_fetching(server) as process:
        assert halfway.wait(60)
        process.kill()
        assert process.wait() == -9
    go_on.set()
    left = [name for name in lies_in(folder) if name.endswith(".part")]
    assert len(left) == 1
    others = [folder / f".{name}.{'0' * 32}.part" for name in ("other.zip", f"{NAME}.old", f"my.{NAME}")]
    for other in others:  # other files, which may be on their way
        other.write_bytes(b"")
    (folder / f".{NAME}.sha256.{'0' * 32}.part").write_bytes(b"")  # as if killed a little later
    assert NAME not in lies_in(folder)
    server.answer = whole(BODY)
    fetch(f"{server.url}/photos", NAME)
    for other in others:
        other.unlink()  # raises if it is gone
    all_is_well(server, folder)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    server.answer = whole(BODY)
    with pytest.raises(DataError, match="LAYERLAB_CACHE names another folder"):
        fetch(f"{server.url}/photos", NAME, folder=tmp_path / "file" / "below")
    assert server.asked == []


def test_a_file_system_without_locks(server, folder, monkeypatch):
    def refuse(self):
        raise NotImplementedError

    server.answer = whole(BODY)
    with monkeypatch.context() as patched:
        patched.setattr("filelock.FileLock.acquire", refuse)
        with pytest.raises(DataError, match="knows no locks"):
            fetch(f"{server.url}/photos", NAME)
    all_is_well(server, folder)


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b", "/etc/x", "C:x", "nul\0"])
def test_a_name_with_a_folder_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="plain file name"):
        fetch("http://127.0.0.1:9/", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["", "abc", SUM[:-1], SUM + "0", "g" * 64])
def test_a_checksum_must_be_one(wrong):
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        fetch("http://127.0.0.1:9/", NAME, sha256=wrong)


@pytest.mark.parametrize("url", ["photos.zip", "ftp://127.0.0.1/photos.zip", "http://"])
def test_a_url_that_is_none(url, folder):
    with pytest.raises(DataError, match=NAME):
        fetch(url, NAME)
    assert set(lies_in(folder)) <= {LOCK}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (urllib.error.HTTPError("http://x", 404, "gone", {}, None), "404 (Not Found)"),
        (urllib.error.URLError(TimeoutError("timed out")), "did not answer in time"),
        (urllib.error.URLError(socket.gaierror(-2, "unknown")), "no network"),
        (urllib.error.URLError(OSError(errno.ENOSPC, "full")), "no space left"),
        (requests.exceptions.SSLError("bad certificate"), "certificate could not be verified"),
        (requests.ConnectTimeout(), "did not answer in time"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "cut off"),
        (PermissionError(errno.EACCES, "Permission denied", "folder"), "Permission denied: folder"),
        (KeyError("odd"), "KeyError('odd')"),
    ],
)
def test_causes_in_words(error, words):
    assert words in in_words(error)


def test_an_error_that_wraps_itself_ends():
    error = OSError("odd")
    error.__cause__ = OSError(error)
    assert in_words(error) == "OSError('odd')"


def test_the_folders_that_the_environment_names(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    assert data_folder() is None
    assert given(NAME) is None
    monkeypatch.setenv("LAYERLAB_DATA", str(tmp_path))
    assert given(NAME) is None
    (tmp_path / NAME).write_bytes(BODY)
    assert given(NAME) == tmp_path / NAME
    monkeypatch.setenv("LAYERLAB_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match="none is no folder"):
        data_folder()


def test_the_systems_cache_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("LAYERLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder().name == "layerlab" or sys.platform == "win32"
    assert not (tmp_path / "layerlab").exists()


def test_the_way_out_says_whether_a_folder_was_looked_at(tmp_path, monkeypatch):
    monkeypatch.delenv("LAYERLAB_DATA", raising=False)
    assert way_out("a.zip") == (
        "Get a.zip in another way, put it into a folder and set LAYERLAB_DATA to that folder."
    )
    monkeypatch.setenv("LAYERLAB_DATA", str(tmp_path))
    assert f"put it into {tmp_path}, which LAYERLAB_DATA names: it is not there" in way_out("a.zip")
