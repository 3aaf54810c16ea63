"""EMCL's operator: expectation-maximisation over the dimensions of a batch of features.

Repeated `stages` times, starting from M = mu in every row:
    Z = softmax_k(E^T M / lamd),  Z_k /= 1e-6 + sum_d Z_dk
    M = E Z,                      M_k /= 1e-6 + ||M_k||
and then  E' = E + beta M Z^T.

E is given by what it does to Z and M, so that rows which share factors are never written out.
Nothing of M and Z carries a gradient. Source: EMCL (arXiv:2211.11427), equations 4 to 8, in the
arithmetic of jpthu17/EMCL.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class EmSettings:
    """stages: EM iterations. lamd: softmax temperature. beta: share of what is put back.

    momentum: how much of mu a training step keeps.
    """

    stages: int
    lamd: float
    beta: float
    momentum: float


class Rows(Protocol):
    """The N rows of E, whatever they are made of."""

    def times(self, z_dk: Array) -> Any:
        """E Z: an array [...,K] for every group of rows, as a tree."""

    def gathered(self, m_rows: Any) -> Array:
        """E^T M: [D,K], from M as `times` gives it."""


class DenseRows(NamedTuple):
    """Rows that are there: [N,D]."""

    rows_nd: Array

    def times(self, z_dk: Array) -> Array:
        """E Z, [N,K]."""
        return jnp.einsum("nd,dk->nk", self.rows_nd, z_dk, precision="highest")

    def gathered(self, m_nk: Array) -> Array:
        """E^T M, [D,K]."""
        return jnp.einsum("nd,nk->dk", self.rows_nd, m_nk, precision="highest")


class Reconstruction(NamedTuple):
    """R = M Z^T, kept as its factors: z_dk [D,K] and M, a tree of [...,K]."""

    z_dk: Array
    m_rows: Any


def _column_norms(m_rows: Any) -> Array:
    squares = [jnp.square(m).reshape(-1, m.shape[-1]).sum(0) for m in jax.tree.leaves(m_rows)]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def reconstruct(rows: Rows, mu_k: Array, settings: EmSettings) -> Reconstruction:
    """The last Z and M of the iterations from mu_k [K]; constants for every gradient."""
    rows, mu_k = jax.lax.stop_gradient((rows, mu_k))
    shapes = jax.eval_shape(
        lambda: rows.times(jnp.zeros((rows_width(rows), mu_k.shape[0]), jnp.float32))
    )

    def stage(_: Any, previous: Reconstruction) -> Reconstruction:
        z_dk = jax.nn.softmax(rows.gathered(previous.m_rows) / settings.lamd, axis=1)
        z_dk = z_dk / (EPSILON + z_dk.sum(axis=0))
        m_rows = rows.times(z_dk)
        norms_k = EPSILON + _column_norms(m_rows)
        return Reconstruction(z_dk, jax.tree.map(lambda m: m / norms_k, m_rows))

    start = Reconstruction(
        jnp.zeros((rows_width(rows), mu_k.shape[0]), jnp.float32),
        jax.tree.map(lambda shape: jnp.broadcast_to(mu_k, shape.shape), shapes),
    )
    return jax.lax.fori_loop(0, settings.stages, stage, start)


def rows_width(rows: Rows) -> int:
    """D: the width of every array of rows."""
    return jax.tree.leaves(rows)[0].shape[-1]


def moved_mu(mu_k: Array, m_rows: Any, momentum: float) -> Array:
    """mu after a training step: momentum mu + (1 - momentum) mean of M over its rows; [K]."""
    leaves = [m.reshape(-1, m.shape[-1]) for m in jax.tree.leaves(m_rows)]
    total_k = sum((m.sum(0) for m in leaves[1:]), leaves[0].sum(0))
    mean_k = total_k / sum(m.shape[0] for m in leaves)
    return momentum * mu_k + (1 - momentum) * mean_k


def emcl(rows_nd: Array, mu_k: Array, settings: EmSettings) -> tuple[Array, Array]:
    """(E', mu after a training step) of features [N,D]; the gradient of E' is that of E."""
    factors = reconstruct(DenseRows(rows_nd), mu_k, settings)
    added_nd = jnp.einsum("nk,dk->nd", factors.m_rows, factors.z_dk, precision="highest")
    moved_k = moved_mu(jax.lax.stop_gradient(mu_k), factors.m_rows, settings.momentum)
    return rows_nd + settings.beta * added_nd, moved_k
