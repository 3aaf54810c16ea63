"""The record of what computed a number."""

from __future__ import annotations

from vtr_jax.versions import PACKAGES, software_versions


def test_packages_platform_and_device_are_named():
    versions = software_versions()
    assert versions.keys() == {"vtr_jax", *PACKAGES, "python", "platform", "device"}
    assert all(versions.values())
    assert versions["device"].startswith("1 x cpu")
