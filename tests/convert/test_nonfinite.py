"""Weights that are NaN or infinite: an error where they enter, unless asked for."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import vtr_jax
from vtr_jax.checkpoint import write_retriever
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.finite import nonfinite_counts
from vtr_jax.sharding import make_mesh, shardings


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "name", ["token_embedding.weight", "transformer.resblocks.1.mlp.c_fc.weight", "logit_scale"]
)
def test_conversion_names_the_tensor(name, dtype, value, tiny_retriever, tmp_path: Path):
    tensors = vtr_jax.to_state_dict(tiny_retriever("clip"))
    tensors = {key: np.array(item, order="C") for key, item in tensors.items()}
    tensors[name] = tensors[name].astype(dtype)
    flat = tensors[name].reshape(-1)  # a view
    flat[:3] = value
    count = len(flat[:3])
    save_file(tensors, tmp_path / "w.safetensors")
    heads = {"vision_heads": 2, "text_heads": 2}
    with pytest.raises(ValueError, match=rf"{name} \({count} values\)") as error:
        convert_checkpoint(tmp_path / "w.safetensors", tmp_path / "r", **heads)
    assert str(error.value).startswith(str(tmp_path / "w.safetensors"))
    assert not (tmp_path / "r").exists()
    convert_checkpoint(tmp_path / "w.safetensors", tmp_path / "r", allow_nonfinite=True, **heads)
    with pytest.raises(ValueError, match=rf"\({count} values\).*allow_nonfinite=True"):
        vtr_jax.load_retriever(tmp_path / "r")
    loaded = vtr_jax.load_retriever(tmp_path / "r", allow_nonfinite=True)
    again = vtr_jax.to_state_dict(loaded)[name]
    np.testing.assert_array_equal(again, tensors[name].astype(np.float32))


def test_loading_names_every_array(tiny_retriever, tmp_path: Path):
    retriever = tiny_retriever("clip4clip", sim_header="seqTransf")
    params = jax.tree.map(np.array, retriever.params)
    params["logit_scale"] = np.array(np.nan, np.float32)
    write_retriever(tmp_path / "r", retriever.config, params)
    with pytest.raises(ValueError, match=r"weights: .*logit_scale \(1 values\)"):
        vtr_jax.load_retriever(tmp_path / "r")


def test_counts_on_a_mesh():
    params = {
        "a": {"w": jnp.zeros((8, 4)).at[3, 1:3].set(jnp.inf)},
        "b": jnp.ones(3),
        "n": jnp.arange(3),
    }
    mesh = make_mesh()
    placed = jax.tree.map(jax.device_put, params, shardings(params, mesh))
    assert nonfinite_counts(placed) == {"a/w": 2}
    assert nonfinite_counts({"b": params["b"]}) == {}
