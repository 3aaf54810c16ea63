"""A cluster of one, and what half a cluster is told."""

from __future__ import annotations

import argparse
import os

import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax import cluster


def told(*arguments):
    parser = argparse.ArgumentParser()
    cluster.add_arguments(parser)
    parser.add_argument("--other", default=1)
    return parser.parse_args(arguments)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in [
        name for name in os.environ if name.startswith(("JAX_COORD", "JAX_NUM_PROC", "JAX_PROC"))
    ]:
        monkeypatch.delenv(name)


def test_one_process_is_a_cluster_of_one(tmp_path):
    options = told()
    cluster.join(options, saves_when_stopped=True)
    assert vars(options) == {"other": 1}  # what is left belongs to the command
    assert cluster.is_first()
    cluster.on_first((tmp_path / "written").write_text, "once")
    assert (tmp_path / "written").read_text() == "once"
    cluster.wait_for_all("here")
    assert cluster.from_first(3) == 3
    tree = cluster.to_host({"a": jnp.arange(3), "b": 2.0})
    assert all(isinstance(leaf, np.ndarray) for leaf in tree.values())
    np.testing.assert_array_equal(tree["a"], [0, 1, 2])
    cluster.give_up(3)  # nobody waits: the process lives on
    assert cluster.of_another(RuntimeError("Gloo all-reduce failed")) == ""


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--num_processes=2"], {}, "all three options; --coordinator_address, --process_id not"),
        ([], {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "--coordinator_address not given"),
        (["--process_id=0"], {"JAX_COORDINATOR_ADDRESS": "here:1"}, "; --num_processes not given"),
        ([], {"JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID: expected a whole number, found 'one'"),
    ],
)
def test_half_a_cluster_is_refused(monkeypatch, arguments, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said):
        cluster.join(told(*arguments), saves_when_stopped=False)


def test_joining_too_late_is_an_error_where_others_wait(monkeypatch):
    jnp.zeros(1).block_until_ready()
    whole = ("--coordinator_address=127.0.0.1:1", "--num_processes=2", "--process_id=1")
    with pytest.raises(ValueError, match="the processes cannot be joined: .*must be called before"):
        cluster.join(told(*whole), saves_when_stopped=False)


def test_an_option_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("JAX_PROCESS_ID", "7")
    assert cluster._told("process_id", 2) == 2
    assert cluster._told("process_id", None) == 7
