"""Preparing on Apache Beam: byte for byte the store of the local run."""

from __future__ import annotations

import sys

import pytest

from vtr_jax.data.frame_store.beam import BeamRunner


@pytest.fixture
def beam():
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed (vtr_jax[beam])")
    return BeamRunner("BundleBasedDirectRunner")  # DirectRunner itself, without a download first


@pytest.mark.parametrize("name", ["DirectRunner", "BundleBasedDirectRunner"])
def test_the_store_is_the_local_runs_byte_for_byte(
    beam, prepare_small, tmp_path, whole_split, store_dir, contents, name
):
    report = prepare_small(whole_split, beam_runner=BeamRunner(name))
    assert (report.prepared, report.bad) == (10, ())
    assert contents(tmp_path / "store") == contents(store_dir)


def test_bad_videos_are_listed_and_good_ones_kept(beam, prepare_small, tmp_path, split_of_files):
    split = split_of_files(["clip0.mp4", "junk.mp4", "empty.mp4"])
    local = prepare_small(split, tmp_path / "local", max_bad_share=0.9)
    prepare_small(split.restrict(["clip0"]), tmp_path / "other")
    report = prepare_small(split, tmp_path / "other", max_bad_share=0.9, beam_runner=beam)
    assert report.bad == local.bad
    assert (report.already_done, report.prepared) == (1, 0)


def test_without_beam_the_remedy_is_named(
    prepare_small, tmp_path, whole_split, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'vtr_jax\[beam\]'"):
        prepare_small(whole_split, beam_runner=BeamRunner("DirectRunner"))
    assert not (tmp_path / "store").exists()
    assert "prepare (" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["DirektRunner", "no.such.Runner"])
def test_an_unknown_runner_is_refused_before_any_work(
    beam, prepare_small, tmp_path, whole_split, name
):
    with pytest.raises(ValueError, match=f"beam_runner '{name}': "):
        prepare_small(whole_split, beam_runner=BeamRunner(name))
    assert not (tmp_path / "store").exists()
