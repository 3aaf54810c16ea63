"""Name tables: every parameter has one original key and one path, and the way back is the same."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import (
    check_names,
    original_from_params,
    original_shape,
    params_from_original,
)
from vtr_jax.convert.names.rows import (
    AGGREGATION_ROWS,
    CONV2D,
    CROSS_ROWS,
    LINEAR,
    PREFIXED_CLIP_ROWS,
    TOKEN_WEIGHT_ROWS,
    NameTable,
    Row,
)
from vtr_jax.models.recipes import RECIPES
from vtr_jax.models.retriever import abstract_retriever

SHARED_ROWS = (*PREFIXED_CLIP_ROWS, *AGGREGATION_ROWS, *CROSS_ROWS, *TOKEN_WEIGHT_ROWS)


def paths_of(params) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
    }


def test_every_recipe_has_a_table():
    assert set(NAME_TABLES) == set(RECIPES)


@pytest.mark.parametrize("table", NAME_TABLES.values(), ids=NAME_TABLES)
def test_a_table_is_a_bijection(table):
    originals, ours = [row.original for row in table.rows], [row.ours for row in table.rows]
    assert len(set(originals)) == len(originals)
    assert len(set(ours)) == len(ours)
    patterns = {re.escape(key).replace(r"\{\}", r"\d+") for key in originals}
    for key in originals:
        example = key.format(0)
        assert sum(re.fullmatch(pattern, example) is not None for pattern in patterns) == 1


@pytest.fixture(scope="module")
def paths_used(variants, tiny_retriever):
    """Every path that some retriever of a recipe has, by recipe."""
    return {
        recipe: {
            path
            for options in variants[recipe]
            for path in paths_of(tiny_retriever(recipe, **options).params)
        }
        for recipe in NAME_TABLES
    }


@pytest.mark.parametrize("recipe", NAME_TABLES)
def test_a_table_covers_what_its_retrievers_have(recipe, paths_used):
    """And has no rows for nothing, but for groups that other systems use the rest of."""
    rows = {row.ours: row for row in NAME_TABLES[recipe].rows}
    assert paths_used[recipe] <= set(rows)
    for path in set(rows) - paths_used[recipe]:
        assert rows[path] in SHARED_ROWS, path


def test_shared_rows_are_all_used_by_some_system(paths_used):
    shared = {row.ours for row in SHARED_ROWS}
    assert shared <= set().union(*paths_used.values())


def test_round_trip_is_the_identity(variant, tiny_retriever):
    recipe, options = variant
    retriever, table = tiny_retriever(recipe, **options), NAME_TABLES[recipe]
    original = original_from_params(retriever.params, table)
    again = params_from_original(original, table, abstract_retriever(retriever.config).params)
    jax.tree.map(np.testing.assert_array_equal, again, retriever.params)
    back = original_from_params(again, table)
    assert list(back) == list(original)
    for key, array in back.items():
        np.testing.assert_array_equal(array, original[key], err_msg=key)
        assert array.flags.c_contiguous, key


def test_layouts_of_openai(tiny_retriever):
    """Two plain matrices stay as they are, Linear weights turn, patches turn to channels first."""
    params = tiny_retriever().params
    original = original_from_params(params, NAME_TABLES["clip"])
    np.testing.assert_array_equal(original["text_projection"], params["text"]["projection"])
    np.testing.assert_array_equal(original["visual.proj"], params["visual"]["projection"])
    qkv = params["text"]["transformer"]["blocks"]["attn"]["qkv"]["kernel"]
    key = "transformer.resblocks.2.attn.in_proj_weight"
    np.testing.assert_array_equal(original[key], qkv[2].T)
    kernel = params["visual"]["patch_embedding"]["kernel"]
    assert original["visual.conv1.weight"].shape == (32, 3, 8, 8)
    assert original["visual.conv1.weight"][5, 2, 1, 7] == kernel[1, 7, 2, 5]
    assert original["logit_scale"].shape == ()


def test_layout_of_the_3d_patch_embedding(tiny_retriever):
    params = tiny_retriever("clip4clip", linear_patch="3d").params
    conv2 = original_from_params(params, NAME_TABLES["clip4clip"])["clip.visual.conv2.weight"]
    assert conv2.shape == (32, 3, 3, 8, 8)
    kernel = params["visual"]["patch_embedding_3d"]["kernel"]
    assert conv2[5, 2, 0, 1, 7] == kernel[0, 1, 7, 2, 5]


TABLE = NameTable(
    rows=(
        Row("conv.weight", "conv/kernel", CONV2D),
        Row("blocks.{}.weight", "blocks/kernel", LINEAR),
        Row("scale", "scale"),
    ),
    ignored=("version",),
)
ABSTRACT = {
    "conv": {"kernel": jax.ShapeDtypeStruct((2, 3, 4, 5), np.float32)},
    "blocks": {"kernel": jax.ShapeDtypeStruct((2, 6, 7), np.float32)},
    "scale": jax.ShapeDtypeStruct((), np.float32),
}


def fitting(dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "conv.weight": (5, 4, 2, 3),
        "blocks.0.weight": (7, 6),
        "blocks.1.weight": (7, 6),
        "scale": (),
    }
    return {key: np.asarray(rng.standard_normal(shape), dtype) for key, shape in shapes.items()}


def test_shapes_of_the_original():
    assert original_shape(TABLE.rows[0], ABSTRACT["conv"]["kernel"]) == (5, 4, 2, 3)
    assert original_shape(TABLE.rows[1], ABSTRACT["blocks"]["kernel"]) == (7, 6)


def test_ignored_names_may_stand_there():
    params = params_from_original({**fitting(), "version": np.array(1)}, TABLE, ABSTRACT)
    assert set(paths_of(params)) == {"conv/kernel", "blocks/kernel", "scale"}


def test_missing_unexpected_and_misshaped_names_are_in_one_error():
    tensors = fitting()
    del tensors["blocks.1.weight"]
    tensors["conv.bias"] = np.zeros(5)
    tensors["blocks.2.weight"] = np.zeros((7, 6))
    tensors["conv.weight"] = np.zeros((5, 4, 3, 3))
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        params_from_original(tensors, TABLE, ABSTRACT, what="file.bin")
    assert str(caught.value).splitlines() == [
        "file.bin: its names do not fit",
        "  missing:",
        "    blocks.1.weight (7, 6)",
        "  unexpected:",
        "    conv.bias (5,)",
        "    blocks.2.weight (7, 6)",
        "  wrong shape:",
        "    conv.weight: expected (5, 4, 2, 3), found (5, 4, 3, 3)",
        "nothing was loaded from file.bin: 1 missing, 2 unexpected, 1 wrong shape",
    ]


def test_quantised_weights_are_refused():
    with pytest.raises(ValueError, match="conv.weight: expected floating point, found int8"):
        params_from_original(
            {**fitting(), "conv.weight": np.zeros((5, 4, 2, 3), np.int8)}, TABLE, ABSTRACT
        )


def test_long_lists_are_complete():
    extra = {f"extra.{i}": np.zeros(1) for i in range(300)}
    with pytest.raises(ValueError, match="4 missing, 300 unexpected$") as caught:
        check_names(extra, TABLE, ABSTRACT, "file")
    assert all(f"{name} (1,)" in str(caught.value) for name in extra)


def test_numbers_without_a_shape_of_their_own_can_be_read():
    params = params_from_original({**fitting(), "scale": 4.5}, TABLE, ABSTRACT)
    assert params["scale"] == np.float32(4.5)


def test_float16_becomes_float32_exactly():
    tensors = fitting(np.float16)
    params = params_from_original(tensors, TABLE, ABSTRACT)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    expected = tensors["blocks.1.weight"].astype(np.float32).T
    np.testing.assert_array_equal(params["blocks"]["kernel"][1], expected)


def test_the_dtype_of_the_file_can_be_kept():
    """A stack of layers in several dtypes becomes float32, which holds them all."""
    tensors = fitting(np.float16)
    tensors["blocks.1.weight"] = tensors["blocks.1.weight"].astype(np.float32)
    params = params_from_original(tensors, TABLE, ABSTRACT, dtype=None)
    assert params["conv"]["kernel"].dtype == np.float16
    assert params["blocks"]["kernel"].dtype == np.float32


def test_tensors_are_read_one_at_a_time():
    alive = []

    def lazy(array):
        def load():
            alive.append(array.nbytes)
            return array

        return LazyTensor(array.dtype, array.shape, load)

    tensors = {key: lazy(array) for key, array in fitting().items()}
    check_names(tensors, TABLE, ABSTRACT, "file")
    assert alive == []  # names and shapes are checked before anything is read
    params_from_original(tensors, TABLE, ABSTRACT)
    assert len(alive) == 4


def test_a_parameter_without_a_row_is_an_error():
    with pytest.raises(ValueError, match="no row in the name table for: head/kernel"):
        original_from_params({"head": {"kernel": np.zeros(3)}, "scale": np.zeros(())}, TABLE)
