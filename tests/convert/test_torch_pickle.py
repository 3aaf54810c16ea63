"""The pickle machine alone: what it builds, and that nothing a file says makes it act."""

from __future__ import annotations

import argparse
import datetime
import decimal
import enum
import fractions
import io
import os
import pickle
import random
import tempfile
import types
import typing
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr_jax.convert.torch_pickle import read_pickle
from vtr_jax.convert.torch_storage import Storage
from vtr_jax.convert.torch_types import Constructor, Inert, Opaque, ScriptNode

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


def no_storage(_reference: object) -> Storage:
    raise ValueError("these pickles refer to no storage")


def read(code: bytes) -> object:
    return read_pickle(io.BytesIO(code), no_storage)


@settings(deadline=None, max_examples=60)
@given(value=PLAIN, protocol=st.integers(2, 5))
def test_plain_values_are_what_pickle_wrote(value: object, protocol: int):
    code = pickle.dumps(value, protocol)
    assert read(code) == pickle.loads(code)


def test_bytes_are_plain_values():
    for protocol in (3, 4, 5):
        assert read(pickle.dumps([b"", b"x" * 300], protocol)) == [b"", b"x" * 300]


@settings(deadline=None, max_examples=200)
@given(code=st.binary(max_size=60))
def test_any_bytes_end_in_a_value_or_a_value_error(code: bytes):
    for start in (b"", b"\x80\x02(", b"\x80\x02}(X\x01\x00\x00\x00a"):
        try:
            read(start + code + b".")
        except ValueError as error:
            assert str(error)


class Touch:
    """Unpickled naively, it runs a shell command that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_reduced_calls_are_refused(protocol: int, tmp_path: Path):
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match="refused"):
        read(pickle.dumps({"weight": Touch(marker)}, protocol))
    assert not marker.exists()


CALLS = {
    "eval by name": b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    "name from the stack": b"\x8c\x08builtins\x8c\x04exec\x93)R.",
    "old class instance": b"(ios\nsystem\n.",
    "instance by INST": b"(X\x01\x00\x00\x001ios\nsystem\n.",
    "instance by OBJ": b"(cos\nsystem\nX\x01\x00\x00\x001o.",
    "extension registry": b"\x82\x01.",
    "call of a text": b"X\x01\x00\x00\x00a)R.",
    "call of a storage type": b"ctorch\nFloatStorage\n)R.",
    "attribute path": b"\x8c\x0bcollections\x8c\x15OrderedDict.__reduce__\x93)R.",
    "dunder of a known module": b"ctorch._utils\n__builtins__\n)R.",
    "near miss": b"c__torch__evil\nA\n)\x81.",
    "tensor from bytes": b"ctorch.storage\n_load_from_bytes\nC\x01a\x85R.",
    "state on a text": b"X\x01\x00\x00\x00a}b.",
    "state on a type": b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00aNsb.",
    "keyword arguments": b"ccollections\nOrderedDict\n)}\x92.",
}


@pytest.mark.parametrize("name", CALLS)
def test_every_way_to_call_is_refused(name: str):
    with pytest.raises(ValueError, match=r"refused|damaged"):
        read(b"\x80\x04" + CALLS[name])


def test_error_names_what_was_asked_for():
    with pytest.raises(ValueError, match=r"'shutil\.rmtree'.*nothing was executed"):
        read(b"\x80\x02cshutil\nrmtree\n.")
    with pytest.raises(ValueError, match="instruction EXT1"):
        read(b"\x80\x02\x82\x01.")


def test_things_beside_weights_become_names():
    code = b"\x80\x02}(X\x01\x00\x00\x00acargparse\nNamespace\n)\x81}X\x01\x00\x00\x00xK\x01sb"
    code += b"X\x01\x00\x00\x00cccollections\ndeque\n)\x85R"
    code += b"X\x01\x00\x00\x00dctorch\nfloat32\nu."
    names = [Inert("argparse.Namespace"), Inert("collections.deque"), Inert("torch.float32")]
    assert read(code) == dict(zip("acd", names, strict=True))


def test_dictionaries_of_other_classes_are_dictionaries():
    code = b"\x80\x02(ccollections\ndefaultdict\ncbuiltins\nlist\n\x85RK\x01K\x02s"
    code += b"ccollections\nCounter\n}X\x01\x00\x00\x00aK\x03s\x85Rt."
    assert read(code) == ({1: 2}, {"a": 3})


def test_numpy_numbers_are_never_built():
    value = {"best": np.float64(0.5)}
    assert read(pickle.dumps(value, 2)) == {"best": Inert("numpy._core.multiarray.scalar")}


# One value of everything that training programs were seen to save next to weights.
HARMLESS: dict[str, object] = {
    "array": np.arange(6.0).reshape(2, 3),
    "fortran array": np.asfortranarray(np.ones((2, 3))),
    "structured array": np.zeros(2, dtype=[("a", "f4"), ("b", "i8")]),
    "object array": np.array([1, "a"], dtype=object),
    "masked array": np.ma.masked_array([1, 2], [0, 1]),
    "numpy scalars": [np.float32(1), np.int64(2), np.bool_(True), np.str_("a"), np.bytes_(b"a")],
    "numpy dates": [np.datetime64("2020-01-01"), np.timedelta64(3, "D")],
    "numpy types": [np.float32, np.dtype("f4"), np.dtype("i8")],
    "random state": np.random.RandomState(0).get_state(),
    "random generators": [np.random.RandomState(0), np.random.default_rng(0), np.random.PCG64(1)],
    "python's random state": random.Random(0).getstate(),
    "sets": [{1, "a"}, frozenset({2}), {(1, 2)}, set()],
    "collections": [deque([1], 3), OrderedDict(a=1), defaultdict(list, a=[1]), Counter("aab")],
    "dates": [datetime.datetime(2020, 1, 2), datetime.date(2020, 1, 2), datetime.time(1)],
    "time zones": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    "durations": datetime.timedelta(3, 4),
    "paths": [Path("/a/b"), PurePosixPath("c"), PureWindowsPath("c:/x")],
    "namespaces": [argparse.Namespace(a=1), types.SimpleNamespace(b=2)],
    "numbers": [1 + 2j, 2**80, -5, 1e300, decimal.Decimal("1.5"), fractions.Fraction(1, 3)],
    "slices and ranges": [slice(1, 2), range(5)],
    "bytes": [b"a\xff", bytearray(b"b\xff"), bytearray()],
    "classes": [int, dict, list, str, set, OrderedDict, Path],
    "identifiers": uuid.UUID(int=3),
    "keys": {(1, 2): 3, frozenset({1}): 4, b"k": 5, None: 6, 1.5: 7, datetime.date(2020, 1, 1): 8},
    "annotations": [typing.Any, typing.Optional],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_objects_are_accepted(name: str, protocol: int):
    """Whatever stands next to the weights, the weights are found and nothing is built."""
    try:
        code = pickle.dumps({"before": 1, "odd": HARMLESS[name], "after": [2]}, protocol)
    except (TypeError, ValueError, pickle.PicklingError):
        pytest.skip("this Python cannot write it so")
    value = read(code)
    assert isinstance(value, dict) and list(value) == ["before", "odd", "after"]
    assert (value["before"], value["after"]) == (1, [2])


class Settings:
    """A class that stands for one of a training program."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)


class Mode(enum.Enum):
    """An enumeration of a training program."""

    FAST = "fast"


class Named(dict):  # type: ignore[type-arg]
    """A dictionary class of a training program."""


class Numbered(list):  # type: ignore[type-arg]
    """A list class of a training program."""


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "value", [Settings(a=[1, {"b": 2}]), Mode.FAST, Named(a=1), Numbered([1, 2])], ids=str
)
def test_objects_of_unknown_classes_become_their_name(value: object, protocol: int):
    found = read(pickle.dumps([value, "x"], protocol).replace(__name__.encode(), MODULE))
    assert isinstance(found, list) and isinstance(found[0], Opaque) and found[1] == "x"
    assert found[0].name.rpartition(".")[2] == type(value).__name__
    assert found[0].count_tensors() == 0


# As long as this module's own name, so that lengths in pickles stay right, and not installed.
MODULE = b"q" * len(__name__)


def test_tensors_inside_unknown_objects_are_counted():
    tensor = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R"
    code = b"\x80\x02cmylib.ema\nModelEma\n)\x81}X\x01\x00\x00\x00a](" + tensor + tensor + b"esb."
    found = read(code)
    assert isinstance(found, Opaque) and found.count_tensors() == 2


@pytest.mark.parametrize(
    "name", ["mylib\nload", "mylib.a\nrun_it", "torch\nload", "torch.hub\nload", "numpy\nload"]
)
def test_calls_of_functions_are_refused(name: str):
    with pytest.raises(ValueError, match=r"refused.*nothing was executed"):
        read(f"\x80\x02c{name}\n)R.".encode("latin-1"))


def test_functions_that_are_only_named_are_accepted():
    value = read(b"\x80\x02cmylib\nactivation\n.")
    assert isinstance(value, Constructor)


def test_script_modules_and_sizes():
    code = b"\x80\x02(c__torch__.a.b\nModel\n)\x81}X\x01\x00\x00\x00nK\x03sb"
    code += b"ctorch\nSize\nK\x02K\x03\x86\x85Rctorch.jit._pickle\nbuild_intlist\n](K\x01e\x85Rt."
    node, size, numbers = read(code)
    assert isinstance(node, ScriptNode)
    assert (node.class_name, node.attributes) == ("__torch__.a.b.Model", {"n": 3})
    assert (size, numbers) == ((2, 3), [1])


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02NN.",
        b"\x80\x02(N.",
        b"\x80\x02h\x05.",
        b"\x80\x02t.",
        b"\x80\x02Na.",
        b"\x80\x02NNe.",
        b"\x80\x02}NNNu.",
        b"\x80\x02}(Nu.",
        b"\x80\x02N(NNu.",
        b"\x80\x02](Nu.",
        b"\x80\x02}(aN.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\nN\x85R.",
        b"\x80\x02ctorch\nSize\n)R.",
        b"\x80\x02ctorch.jit._pickle\nbuild_intlist\n)R.",
        b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
        b"\x80\x02c__torch__\nA\n)\x81Nb.",
        b"\x80\x02c__torch__\nA\n)\x81}K\x01K\x01sb}K\x01K\x01sb.",
        b"\x80\x04NN\x93.",
    ],
)
def test_malformed_pickles_are_value_errors(code: bytes):
    with pytest.raises(ValueError, match="damaged|save|written"):
        read(code)


def test_unhashable_and_deep_keys_are_never_hashed():
    deep = b"\x80\x02})" + b"\x85" * 200_000 + b"Ns."
    for code, kind in ((deep, "tuple"), (b"\x80\x02}]Ns.", "list")):
        value = read(code)
        assert isinstance(value, dict)
        assert [str(key) for key in value] == [f"a key of type {kind}"]


def test_deep_values_do_not_exhaust_the_interpreter():
    assert read(b"\x80\x02)" + b"\x85" * 200_000 + b".")
    nested = b"c__torch__\nA\n)\x81}X\x01\x00\x00\x00a"
    code = b"\x80\x02" + nested * 20_000 + b"N" + b"sb" * 20_000 + b"."
    assert isinstance(read(code), ScriptNode)


def test_endless_instructions_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vtr_jax.convert.torch_pickle._MAX_INSTRUCTIONS", 100)
    with pytest.raises(ValueError, match="at most 100 steps"):
        read(b"\x80\x02](" + b"N" * 200 + b"e.")


def test_no_marker_was_left_by_any_test():
    assert not (Path(tempfile.gettempdir()) / "vtr_pwned").exists()
