"""The pickle machine alone: what it builds, and that nothing a file says makes it act."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr_jax.convert.torch_pickle import read_pickle
from vtr_jax.convert.torch_storage import Storage
from vtr_jax.convert.torch_types import Inert, ScriptNode

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
    code += b"X\x01\x00\x00\x00bccollections\nCounter\n}\x85R"
    code += b"X\x01\x00\x00\x00cctorch\nfloat32\nu."
    names = [Inert("argparse.Namespace"), Inert("collections.Counter"), Inert("torch.float32")]
    assert read(code) == dict(zip("abc", names, strict=True))


def test_what_is_put_into_such_things_is_dropped():
    code = b"\x80\x02(ccollections\ndefaultdict\ncbuiltins\nlist\n\x85RK\x01K\x02s"
    code += b"ccollections\nCounter\n)R](K\x01eat."
    assert read(code) == (Inert("collections.defaultdict"), Inert("collections.Counter"))


def test_numpy_numbers_are_never_built():
    value = {"best": np.float64(0.5)}
    assert read(pickle.dumps(value, 2)) == {"best": Inert("numpy._core.multiarray.scalar")}


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


def test_unhashable_and_deep_keys_are_refused():
    deep = b"\x80\x02})" + b"\x85" * 200_000 + b"Ns."
    with pytest.raises(ValueError, match="key of type tuple"):
        read(deep)
    with pytest.raises(ValueError, match="key of type list"):
        read(b"\x80\x02}]Ns.")


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
