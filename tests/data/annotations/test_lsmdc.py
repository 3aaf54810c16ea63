"""LSMDC's lines: what the upstream loaders made of them, system by system, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtr_jax.data.annotations import MissingSplit, available_splits
from vtr_jax.data.annotations.lsmdc import FILES, read_lsmdc
from vtr_jax.data.split import find_video_files

TIMES = "00.00.01.000\t00.00.02.000\t00.00.01.000\t00.00.02.000"


@pytest.fixture(scope="module")
def real(real_annotations) -> Path:
    return real_annotations / "lsmdc"


@pytest.fixture(scope="module")
def expected(real) -> dict:
    return json.loads((real / "synthetic.expected.json").read_text())


def with_videos(split, expected):
    """The clips for which the upstream loaders were given a file."""
    without = expected[split.name]["clip_without_a_video_file"]
    return split.restrict([clip.clip_id for clip in split.clips if clip.clip_id != without])


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("system", ["clip4clip", "emcl"])
def test_pairs_are_those_of_the_upstream_loaders(real, expected, pairs, split, system):
    read = with_videos(read_lsmdc(real, split, system=system), expected)
    assert pairs(read) == expected[split][f"{system}_pairs"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pairs_and_paths_of_xpool(real, expected, pairs, split):
    read = read_lsmdc(real, split, system="xpool")
    assert pairs(read) == expected[split]["xpool_pairs"]
    assert [clip.file for clip in read.clips] == expected[split]["xpool_paths"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_counts_of_lines_and_clips(real, expected, split):
    read = read_lsmdc(real, split)
    assert len(read.captions) == expected[split]["lines"]
    assert len(read.clips) == expected[split]["unique_clips"]


def test_other_systems_read_like_one_of_these(real):
    def hashes(*systems) -> set[str]:
        return {read_lsmdc(real, "train", system=system).sha256() for system in systems}

    assert len(hashes("clip4clip", "drl", "hbi", "eercf", "cap4video", "internvideo")) == 1
    assert len(hashes("emcl", "backbone_tvr")) == 1


@pytest.fixture
def folder(tmp_path) -> Path:
    lines = [f'-a_00.1.5\t{TIMES}\tHe said "hi, there".', f"_b_00.2.5\t{TIMES}\tSOMEONE's 'x\t"]
    (tmp_path / "LSMDC16_annos_training.csv").write_text("\n".join(lines))
    return tmp_path


def test_quotes_and_commas_belong_to_the_text(folder, pairs):
    assert pairs(read_lsmdc(folder, "train")) == [
        ["-a_00.1.5", 'He said "hi, there".'],
        ["_b_00.2.5", "SOMEONE's 'x"],
    ]


def test_dots_in_clip_ids_are_no_extensions(folder):
    split = read_lsmdc(folder, "train")
    (folder / "film").mkdir()
    (folder / "film" / "-a_00.1.5.avi").write_bytes(b"x")
    (folder / "_b_00.2.5.mp4").write_bytes(b"x")
    found, missing = find_video_files(split, folder)
    assert [path.name for path in found.values()] == ["-a_00.1.5.avi", "_b_00.2.5.mp4"]
    xpool = read_lsmdc(folder, "train", system="xpool")
    assert find_video_files(xpool, folder) == (found, missing)


def test_clips_that_internvideo_leaves_out(tmp_path):
    lines = "".join(f"c{n}\t{TIMES}\tx\n" * (1 + n % 2) for n in range(58_400))
    (tmp_path / "LSMDC16_annos_training.csv").write_text(lines)
    everything = read_lsmdc(tmp_path, "train")
    rest = read_lsmdc(tmp_path, "train", system="internvideo")
    gone = {clip.clip_id for clip in everything.clips} - {clip.clip_id for clip in rest.clips}
    assert gone == {f"c{n}" for n in range(58_200, 58_300)}
    assert rest.notes == ("150 of 87600 lines left out, as internvideo does",)


@pytest.mark.parametrize(
    "change", [lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n")]
)
def test_byte_order_mark_and_line_ends(folder, change):
    expected = read_lsmdc(folder, "train").sha256()
    path = folder / "LSMDC16_annos_training.csv"
    path.write_bytes(change(path.read_bytes()) + b"\n\n")
    assert read_lsmdc(folder, "train").sha256() == expected


@pytest.mark.parametrize(
    "content, message",
    [
        (
            f"a\t{TIMES}\t\n".encode(),
            r"line 1: 5 fields \(no sentence, or no clip id\), expected 6",
        ),
        (f"a\t{TIMES}\tx\nb\t{TIMES}\n".encode(), "training.csv: 1 bad row\n  line 2: 5 fields"),
        (f"\t{TIMES}\tx\n".encode(), "line 1: 5 fields"),
        (f"a\t{TIMES}\tx\ty\n".encode(), "line 1: 7 fields, expected 6 separated by tabs"),
        (b"a,b,c,d,e,f\n", "line 1: 1 fields"),
        (
            f"a\t{TIMES}\tcaf\xe9\n".encode("latin-1"),
            "training.csv, line 1: byte 0xe9 is not UTF-8",
        ),
        (b"\n", "training.csv: no lines, expected one for each caption"),
    ],
)
def test_broken_lines(folder, content, message):
    (folder / "LSMDC16_annos_training.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_lsmdc(folder, "train")


def test_files_that_are_there(folder):
    assert available_splits("lsmdc", folder) == ("train",)
    with pytest.raises(MissingSplit, match=r"LSMDC16_challenge_1000_publictect.csv or .*test.csv"):
        read_lsmdc(folder, "test")
    for name in FILES["test"]:
        (folder / name).write_text(f"a\t{TIMES}\tx\n")
        assert available_splits("lsmdc", folder) == ("train", "test")
        (folder / name).unlink()
