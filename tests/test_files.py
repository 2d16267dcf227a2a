"""Files are written whole or not at all, and read only as far as they are what they claim to be."""

import io
import os
import stat
import struct
import zipfile

import numpy as np
import pytest

import attnflow as af
from attnflow import files


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """The bytes of an .npy file with any header."""
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + length + header.encode("latin1") + body


def described(shape: str, dtype: str = "'<f8'", order: str = "False") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "content",
    [
        npy(described("(1000000000, 3)"), b"\0" * 240),
        npy(described(f"({10**40},)"), b"\0" * 8),
        npy(described(f"({'9' * 5000},)"), b"\0" * 8),
        npy(described("(-3, -1)"), b"\0" * 24),
        npy(described("(3.5,)"), b"\0" * 24),
        npy(described("(10,)"), b"\0" * 79),
        npy(described("(10,)"), b"\0" * 88),
        npy(described("(2,)", "'|O'"), b"\x80\x04N.xxxxxxxxxxx"),
        npy(described("(2,)", "[('a', '<f8'), ('b', '<f8')]"), b"\0" * 32),
        npy(described(f"({10**15},)", "'<U0'")),
        npy(described(f"({10**15},)", "'|V0'")),
        npy(described("(2,)", "'<M8[s]'"), b"\0" * 16),
        npy(described("(2,)", "'no such type'"), b"\0" * 16),
        npy("[" * 9000),
        npy("(" * 9000 + ")" * 900),
        npy("{" * 200),
        npy("__import__('os').getpid()"),
        npy("{}"),
        npy(described("(2,)"), b"\0" * 16, b"\x07\x00"),
        npy("[" * 70000, version=b"\x02\x00"),
        b"\x93NUMPY\x01",
        b"",
        b"\x80\x04\x95 a pickle",
        b"PK\x03\x04",
    ],
)
def test_an_array_that_its_file_does_not_hold_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match="^tokens must be ") as refused:
        files.read_array(tmp_path / "x.npy", "tokens")
    assert len(str(refused.value).splitlines()) == 1 and len(str(refused.value)) < 400


def test_an_array_reads_as_numpy_reads_it(tmp_path):
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(3, 2)), np.array(3.0), np.ones((0, 2)),
                  np.arange(4, dtype=">f4"), np.array([True, False]), np.array([1j])):  # fmt: skip
        np.save(tmp_path / "x.npy", array)
        read = files.read_array(tmp_path / "x.npy", "tokens")
        np.testing.assert_array_equal(read, array)
        assert read.dtype == array.dtype and read.shape == array.shape


def test_more_than_memory_holds_is_refused_with_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(af.capacity, "available", lambda: 10**8)
    with open(tmp_path / "x.npy", "wb") as file:
        file.write(npy(described("(50000000,)")))
        file.truncate(file.tell() + 400_000_000)  # a sparse file: no disk is used
    with pytest.raises(ValueError, match="tokens must fit into memory, got a request for 4.00e.8 bytes where 1.00e.8"):
        files.read_array(tmp_path / "x.npy", "tokens")


@pytest.mark.skipif(os.name == "nt", reason="no such files or limits there")
@pytest.mark.parametrize("read", [lambda path: files.read_array(path, "path"), af.load], ids=["npy", "npz"])
def test_only_regular_files_are_read(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match="path must be a regular file"):
            read(path)
    for path in (None, 3, b"x.npz", np.array("x")):
        with pytest.raises(TypeError, match="path must be a str"):
            read(path)
    for path in ("", "a\0b"):
        with pytest.raises(ValueError, match="path must be the name of a file"):
            read(path)


def test_nothing_half_written_is_left_and_no_link_is_followed(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.txt.partial").symlink_to(target)
    (out / "x.txt").symlink_to(target)
    with files.whole(out / "x.txt", "w") as file:
        file.write("new")
    assert target.read_text() == "precious" and (out / "x.txt").read_text() == "new" and not (out / "x.txt").is_symlink()
    for failure in (KeyboardInterrupt, ValueError):
        with pytest.raises(failure), files.whole(out / "x.txt", "w") as file:
            file.write("half")
            raise failure
    assert (out / "x.txt").read_text() == "new" and len(list(out.iterdir())) == 2


def test_partial_names_cannot_be_foreseen_and_permissions_follow_the_umask(tmp_path):
    names, before = set(), os.umask(0o027)
    try:
        for _ in range(5):
            with files.whole(tmp_path / "x") as file:
                (partial,) = (p for p in tmp_path.iterdir() if p.name != "x")
                names.add(partial.name)
                file.write(b"1")
    finally:
        os.umask(before)
    assert len(names) == 5 and stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt", reason="no such files or limits there")
def test_a_file_that_cannot_be_written_is_named_as_the_user_named_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/x.npz"), files.whole(tmp_path / "nowhere" / "x.npz"):
        pass
    with pytest.raises(ValueError, match="path must be a file to write"), files.whole("/dev/null"):
        pass
    with pytest.raises(TypeError, match="path must be a str or os.PathLike, got NoneType"):
        af.Solution(t=[0.0], y=np.ones((1, 2, 1))).save(None)


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


def test_an_archive_that_declares_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(archive(y=npy(described("(1000000000, 1, 1)"), b"\0" * 800)))
    with pytest.raises(ValueError, match="path must be a file written by .*its header declares 1000000000 x 1 x 1 float64"):
        af.load(path)
    content = bytearray(archive(y=npy(described("(4,)"), b"\0" * 32)))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 2**31)  # the uncompressed size in the directory
    path.write_bytes(content)
    with pytest.raises(ValueError, match="declares more than the file holds"):
        af.load(path)


def test_a_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch):
    monkeypatch.setattr(af.capacity, "available", lambda: 2**25)
    path = tmp_path / "x.npz"
    np.savez_compressed(path, y=np.zeros((1, 2**23 + 1, 1)), t=np.zeros(1))
    assert path.stat().st_size < 2**18
    with pytest.raises(ValueError, match="path must fit into memory, got a request for 6.71e.7 bytes"):
        af.load(path)
