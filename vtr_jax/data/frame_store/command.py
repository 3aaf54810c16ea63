"""What `vtr prepare` does: annotations and video files to a frame store."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from vtr_jax.data.frame_store.settings import ENCODINGS, RULES, StoreSettings
from vtr_jax.data.resize import INTERPOLATIONS, RESIZE_MODES

SETTINGS = tuple(field.name for field in dataclasses.fields(StoreSettings))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `vtr prepare` that are not about annotations and store."""
    parser.add_argument(
        "--videos", required=True, help="folder with the video files, or with folders of frames"
    )
    parser.add_argument(
        "--splits", default="all", help="names with commas; default: all that the annotations have"
    )
    add_settings(parser.add_argument_group("what a frame store holds; it has one set of these"))
    run = parser.add_argument_group("how it is made")
    run.add_argument("--workers", type=int, help="processes; default: one a core")
    run.add_argument(
        "--max_bad_share",
        type=float,
        default=0.05,
        help="fail above this share of unreadable clips (default 0.05)",
    )
    run.add_argument(
        "--dry_run",
        action="store_true",
        help="estimate time and bytes from a sample",
    )
    run.add_argument(
        "--verify",
        action="store_true",
        help="also read every stored record; damaged clips are decoded again",
    )
    run.add_argument("--beam_runner", help="decode on Apache Beam: DirectRunner, FlinkRunner, ...")
    run.add_argument(
        "--beam_option",
        action="append",
        default=[],
        help="an option of Beam's own, may be repeated: --beam_option=--flink_master=HOST:8081",
    )


def add_settings(group: Any) -> None:
    """Add the options that decide the content of a frame store, one per name of `SETTINGS`."""
    default = StoreSettings()
    # None if not given: so an option that contradicts --checkpoint, or that the rule or the
    # encoding does not read, is an error.
    group.add_argument(
        "--checkpoint",
        help="retriever directory: take resolution, resizing, frame rule and frame rate from it",
    )
    group.add_argument(
        "--resize_mode",
        choices=RESIZE_MODES,
        help="shortest (the default): resize the shorter side, crop the center; squash: ignore the "
        "aspect ratio; longest: resize the longer side, pad",
    )
    group.add_argument(
        "--interpolation", choices=INTERPOLATIONS, help="resampling filter (default bicubic)"
    )
    group.add_argument(
        "--resized_side", type=int, help="pixels before the crop (default: the resolution)"
    )
    group.add_argument(
        "--frame_rule",
        choices=RULES,
        help="which original's choice of frames: opencv (CLIP4Clip's whole seconds, the default), "
        "decord (DRL, EMCL, ...), xpool, or of folders of image files",
    )
    group.add_argument(
        "--framerate",
        type=int,
        help="of opencv and decord: frames a second (default 1; 0 with opencv: all); emcl_folder: "
        "every so many files",
    )
    group.add_argument(
        "--num_frames",
        type=int,
        help="of xpool and cap4video_segments_folder: frames a clip (default 12)",
    )
    group.add_argument(
        "--resolution",
        type=int,
        help="pixels a side, as the image tower's (default 224, as most CLIPs; also 288, 336)",
    )
    group.add_argument(
        "--stored_side",
        type=int,
        help="keep whole pictures with this shorter side, 0: the video's own, so that augmentation "
        "comes before the crop; default: squares of the resolution",
    )
    group.add_argument("--encoding", default=default.encoding, choices=ENCODINGS)
    group.add_argument("--jpeg_quality", type=int, help="of jpeg: 1 to 95 (default 95)")
    group.add_argument(
        "--min_frames",
        type=int,
        default=default.min_frames,
        help="leave out clips with fewer (default 1)",
    )


def chosen_settings(known: argparse.Namespace) -> dict[str, Any]:
    """Return fields of StoreSettings from the options and the retriever of --checkpoint.

    Raises ValueError for an option that contradicts the retriever.
    """
    given = {name: getattr(known, name, None) for name in SETTINGS}
    given = {name: value for name, value in given.items() if value is not None}
    if known.checkpoint is None:
        return given
    from vtr_jax.checkpoint import read_config

    stated = read_config(known.checkpoint).preprocessing.store_settings()
    for name in given.keys() & stated.keys():
        if given[name] != stated[name]:
            raise ValueError(
                f"--{name}={given[name]}: the retriever {known.checkpoint} wants "
                f"{name}={stated[name]}; leave out one of --{name} and --checkpoint"
            )
    return {**stated, **given}


def _refuse_idle_options(known: argparse.Namespace) -> None:
    """Raises ValueError for an option that would have no effect beside the others."""
    if known.beam_option and not known.beam_runner:
        raise ValueError("--beam_option has no effect without --beam_runner; give both or neither")
    if known.beam_runner and known.dry_run:
        raise ValueError("--dry_run estimates a run on this machine; leave out --beam_runner")
    if known.beam_runner and known.workers is not None:
        raise ValueError(
            "--workers counts processes of this machine; with --beam_runner, Beam's own "
            "--beam_option=--direct_num_workers=N or the runner's parallelism does"
        )


def run_prepare(known: argparse.Namespace, reader_options: dict[str, Any]) -> None:
    """Prepares the store, or estimates what that would take, and prints what came of it."""
    from vtr_jax.data.annotations import read_available_splits, read_splits
    from vtr_jax.data.frame_store.beam import BeamRunner
    from vtr_jax.data.frame_store.estimate import estimate
    from vtr_jax.data.frame_store.prepare import prepare

    _refuse_idle_options(known)
    source = (known.dataset, known.annotations)
    if known.splits == "all":
        found, missing = read_available_splits(*source, **reader_options)
        splits = list(found.values())
        for name, reason in missing.items():
            print(f"no split {name}: {reason}")
    else:
        splits = list(read_splits(*source, known.splits.split(","), **reader_options).values())
    for split in splits:
        for note in split.notes:
            print(f"{split.name}: {note}")
    settings = chosen_settings(known)
    if known.dry_run:
        options = {"workers": known.workers, "verify": known.verify, **settings}
        print(estimate(splits, known.videos, known.store, **options))
        return
    beam_runner = None
    if known.beam_runner:
        beam_runner = BeamRunner(known.beam_runner, tuple(known.beam_option))
    report = prepare(
        splits,
        known.videos,
        known.store,
        workers=known.workers,
        max_bad_share=known.max_bad_share,
        verify=known.verify,
        beam_runner=beam_runner,
        **settings,
    )
    print(report)
