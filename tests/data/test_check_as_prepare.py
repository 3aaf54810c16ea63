"""check-data and prepare judge the same clips alike, under the same settings."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vtr_jax.cli import main
from vtr_jax.data.annotations import read_split
from vtr_jax.data.check_data import check_data
from vtr_jax.data.frame_store import TooManyBadVideos, prepare
from vtr_jax.data.frame_store.command import SETTINGS

CLIPS = {
    "clip0.mp4": [(None, None)],
    "clip5.mp4": [(None, None), (2.0, 5.0), (8.2, 8.4), (20.0, 22.0), (7.0, None)],
    "half.mp4": [(None, None), (0.0, 2.0), (8.0, 9.0)],
    "hole.mp4": [(None, None)],
    "slow.mp4": [(None, None), (4.0, 5.0)],
    "empty.mp4": [(None, None)],
    "junk.mp4": [(None, None)],
    "lost.mp4": [(None, None)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, video_folder, faststart) -> Path:
    """Whole, short, cut off, damaged and slow videos, and a table of stretches of them."""
    folder = tmp_path_factory.mktemp("judged")
    for source in (video_folder, faststart):
        for path in source.glob("*.mp4"):
            (folder / path.name).symlink_to(path)
    with av.open(str(folder / "slow.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(1, 2))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(0, 250, 50):
            picture = np.full((48, 64, 3), level, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))
    rows = [
        f"{name},text,{'' if start is None else start},{'' if end is None else end}"
        for name, stretches in CLIPS.items()
        for start, end in stretches
    ]
    (folder / "clips.csv").write_text("video,caption,start,end\n" + "\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"framerate": 0},
        {"framerate": 6},
        {"min_frames": 3},
        {"frame_rule": "decord", "framerate": 2},
        {"frame_rule": "xpool", "num_frames": 4},
    ],
    ids=str,
)
def test_the_same_clips_are_left_out_or_end_early(folder, tmp_path, settings):
    split = read_split("table", folder / "clips.csv", "all")
    options = {"resolution": 16, "workers": 1, "max_bad_share": 0.99}
    report = prepare(split, folder, tmp_path / "store", **options, **settings)
    checked = check_data("table", folder / "clips.csv", videos_dir=folder, workers=1, **settings)
    videos = checked.videos
    files = {clip.clip_id: clip.file for clip in split.clips}
    left_out = {*videos.missing, *videos.beyond, *videos.rejected}
    left_out |= {clip_id for clip_id, file in files.items() if file in videos.unreadable}
    assert {bad.clip_id for bad in report.bad} == left_out
    early = {clip.file: clip.reason for clip in report.early}
    assert {**videos.early, **videos.slightly_early}.keys() == early.keys()
    for file, how in videos.early.items():
        assert how in [clip.reason for clip in report.early if clip.file == file]


def test_check_data_has_every_option_of_prepare(folder, capsys):
    with pytest.raises(SystemExit):
        main(["check-data", "--help"])
    shown = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    of_prepare = capsys.readouterr().out
    options = [name for name in SETTINGS if f"--{name}" in of_prepare]
    assert len(options) > 5 and all(f"--{name}" in shown for name in options)


def test_the_options_reach_the_check(folder, tmp_path, capsys):
    table = tmp_path / "own.csv"
    table.write_text("video,caption\nclip1.mp4,three frames\n")
    arguments = ["check-data", f"--annotations={table}", f"--videos={folder}", "--workers=1"]
    assert main(arguments) == 0
    assert main([*arguments, "--min_frames=4"]) == 1
    assert "too short: 3 frames, at least 4" in capsys.readouterr().out
    assert main([*arguments, "--frame_rule=xpool", "--framerate=2"]) == 1
    assert "framerate" in capsys.readouterr().err


def test_whole_videos_pass_both(folder, tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("video,caption\nclip5.mp4,x\nslow.mp4,y\n")
    assert check_data("table", table, videos_dir=folder, workers=1).problems == ()
    split = read_split("table", table, "all")
    try:
        report = prepare(split, folder, tmp_path / "store", resolution=16, workers=1)
    except TooManyBadVideos as error:
        pytest.fail(str(error))
    assert report.bad == () and report.early == ()
