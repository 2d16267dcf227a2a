"""Safetensors files hold what was written, byte for byte as the format says, and nothing else is taken for one."""

import json

import numpy as np
import pytest

from attnflow.learning.tensor_files import read_tensors, write_tensors

RNG = np.random.default_rng(0)


def _file(path, header, data=b"", length=None):
    """A file from its parts; a header that is no text is written as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def _entry(kind, shape, begin, end):
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("kind", ["f8", "f4", "i8", "i4", "u1", "?", ">f8"])
def test_what_is_written_is_read(kind, tmp_path):
    tensors = {"a.weight": RNG.integers(0, 2, (3, 4)).astype(kind), "scalar": np.array(1, kind), "none": np.zeros((0, 5), kind)}
    write_tensors(tmp_path / "t.safetensors", tensors, {"made": "here"})
    read = read_tensors(tmp_path / "t.safetensors")
    assert set(read) == set(tensors) and read.metadata == {"made": "here"} and len(read) == 3
    for name, array in tensors.items():
        assert read[name].shape == array.shape == read.shape(name)
        assert read[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(read[name], array)
    read["a.weight"][0, 0] = 0  # nobody else's memory


def test_the_bytes_are_those_of_the_format(tmp_path):
    write_tensors(tmp_path / "t", {"n": np.array([1, 2], np.uint8), "x": np.array([[0.5]])})
    raw = (tmp_path / "t").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0  # then the widest numbers are aligned
    assert json.loads(raw[8 : 8 + length]) == {"x": _entry("F64", [1, 1], 0, 8), "n": _entry("U8", [2], 8, 10)}
    assert raw[8 + length :] == np.array([0.5], "<f8").tobytes() + b"\1\2"


def test_sixteen_bits_become_the_float32_they_stand_for(tmp_path):
    # bfloat16: 1.0 = 3F80, -2.5 = C020, infinity = 7F80; half: 1.0 = 3C00, 2^-24 = 0001
    data = bytes.fromhex("803f20c0807f") + bytes.fromhex("003c0100")
    read = read_tensors(_file(tmp_path / "t", {"b": _entry("BF16", [3], 0, 6), "h": _entry("F16", [2], 6, 10)}, data))
    assert read["b"].dtype == read["h"].dtype == np.float32
    assert read["b"].tolist() == [1.0, -2.5, np.inf] and read["h"].tolist() == [1.0, 2.0**-24]


EIGHT = {"a": _entry("F64", [1], 0, 8)}


@pytest.mark.parametrize(
    "header, data, length, message",
    [
        (b"", b"", 10**12, "header would have 1000000000000 bytes"),
        (b"{}", b"", 100_000_001, "header would have 100000001 bytes"),
        (b"[1]", b"", None, "no table"),
        (b"{not json", b"", None, "no JSON"),
        (b"\xff\xfe", b"", None, "no JSON"),
        (b"[" * 100_000, b"", None, "no JSON"),
        (EIGHT, bytes(7), None, "cut off"),
        (EIGHT, bytes(9), None, "cut off or longer"),
        ({**EIGHT, "b": _entry("F64", [1], 4, 12)}, bytes(12), None, "'b' starts at byte 4"),
        ({**EIGHT, "b": _entry("F64", [1], 16, 24)}, bytes(24), None, "'b' starts at byte 16"),
        ({"a": _entry("F64", [2], 0, 8)}, bytes(8), None, r"shape \(2,\) and type F64 has 8 bytes"),
        ({"a": _entry("F64", [-1], 0, 8)}, bytes(8), None, "no type, shape and place"),
        ({"a": _entry("F64", [True], 0, 8)}, bytes(8), None, "no type, shape and place"),
        ({"a": {"dtype": "F64"}}, bytes(8), None, "no type, shape and place"),
        ({"a": 3}, b"", None, "no type, shape and place"),
        ({"a": _entry("F64", [0, 2**62, 2**62], 0, 0)}, b"", None, "no type, shape and place"),
        ({"a": _entry("U8", [1] * 100, 0, 1)}, bytes(1), None, "no type, shape and place"),
        ({"a": _entry("F4", [1], 0, 8)}, bytes(8), None, "of type 'F4', accepted are F64"),
        ({"a": _entry(["F64"], [1], 0, 8)}, bytes(8), None, "accepted are"),
        ({"__metadata__": {"a": 1}}, b"", None, "metadata"),
        (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}', b"", None, "'a' comes twice"),
    ],
)
def test_what_is_no_such_file_is_refused_by_its_name(header, data, length, message, tmp_path):
    path = _file(tmp_path / "bad.safetensors", header, data, length)
    with pytest.raises(ValueError, match=f"path must be a safetensors file, got .*bad.safetensors.*{message}"):
        read_tensors(path)


def test_a_short_or_missing_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(ValueError, match="short', of 3 bytes"):
        read_tensors(tmp_path / "short")
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="path must be a regular file"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    "tensors, metadata, error, message",
    [
        ({"a": np.array([1j])}, None, TypeError, "tensors must be arrays of float64.*got complex128 for 'a'"),
        ([np.zeros(2)], None, TypeError, "tensors must be a mapping of names to arrays, got list"),
        ({"a": np.zeros(2)}, "note", TypeError, "metadata must be a mapping of str to str, or None, got str"),
        ({"a": np.ma.masked_less([1.0, 2.0], 1.5)}, None, ValueError, "tensors must have no masked entries"),
        ({1: np.zeros(2)}, None, TypeError, "tensors must have names of type str"),
        ({"__metadata__": np.zeros(2)}, None, ValueError, "must not be called '__metadata__'"),
        ({"a": np.zeros(2)}, {"a": 1}, TypeError, "metadata must map str to str, got int 1"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_left(tensors, metadata, error, message, tmp_path):
    with pytest.raises(error, match=message):
        write_tensors(tmp_path / "t", tensors, metadata)
    assert not list(tmp_path.iterdir())
