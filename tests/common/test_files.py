"""Only regular files are opened, without waiting, up to a limit; new files and folders have the usual mode."""

import hashlib
import os
import socket
import stat
import tempfile

import pytest

from glus.common.errors import InputError
from glus.common.files import give_usual_mode, is_there, make_folder_aside, open_regular, read_regular, sha256_of

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


def test_a_regular_file_is_read_and_digested(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert read_regular(path) == b"abc" == read_regular(str(path), largest=3)
    assert sha256_of(path) == sha256_of(path, needed_again=False) == hashlib.sha256(b"abc").hexdigest()
    with open_regular(path) as file:
        assert file.read() == b"abc"


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused_at_once_by_its_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.mkdir("folder")
    os.symlink("pipe", "link")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    kinds = {"pipe": "a named pipe", "link": "a named pipe", "folder": "a folder", "socket": "a socket"}
    for name, kind in (kinds | {"/dev/zero": "a device"}).items():
        for function in (read_regular, open_regular, sha256_of):
            with pytest.raises(InputError, match=f"{kind} instead of a regular file: name the frame itself") as caught:
                function(name, "frame")
            assert caught.value.file == name
    server.close()


def test_the_limit_holds_before_reading_and_for_files_that_say_no_size(tmp_path):
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 10**13)
    with pytest.raises(InputError, match="more than 1,000 bytes, too many for this config"):
        read_regular(path, "config", largest=1000)
    with pytest.raises(InputError, match="more than 10 bytes"):
        read_regular("/proc/self/status", largest=10)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "absent", "file/below", "loop"])
def test_a_path_that_has_no_file_is_reported(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="no such|can have this path|cannot be read"):
        read_regular(tmp_path / name)


def test_a_file_without_permission_is_reported_as_such(tmp_path):
    path = tmp_path / "private"
    path.touch(mode=0o000)
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o000)
    assert is_there(path) and not is_there(tmp_path / "absent") and not is_there(path / "below")
    own = os.geteuid()
    # Root reads everything.
    os.seteuid(65534 if own == 0 else own)
    try:
        with pytest.raises(InputError, match="no permission to read the weights: ask its owner"):
            read_regular(path, "weights")
        with pytest.raises(InputError, match="no permission to read"):
            is_there(folder / "file")
    finally:
        os.seteuid(own)


def test_a_git_lfs_pointer_is_reported_as_such(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(POINTER)
    with pytest.raises(InputError, match="Git LFS pointer instead of the weights: run `git lfs pull`"):
        open_regular(path, "weights")


@pytest.mark.parametrize("umask", [0o022, 0o007, 0o077])
def test_files_and_folders_get_the_mode_that_the_umask_leaves(tmp_path, umask):
    former = os.umask(umask)
    try:
        folder = make_folder_aside(tmp_path, ".out.", ".part")
        descriptor, name = tempfile.mkstemp(dir=folder)
        os.close(descriptor)
        give_usual_mode(folder / os.path.basename(name))
    finally:
        os.umask(former)
    assert stat.S_IMODE(os.stat(name).st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask
    assert len(list(folder.iterdir())) == 1
