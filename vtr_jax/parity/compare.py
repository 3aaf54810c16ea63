"""How far a retriever is from recorded numbers, array by array, gradients included."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vtr_jax.convert.from_state_dict import retriever_from_state_dict, to_state_dict
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.recipes.recipe import Picks
from vtr_jax.models.retriever import Retriever
from vtr_jax.parity.cases import Case, case_weights, normal_frames
from vtr_jax.parity.recorded import TOLERANCES, Arrays, RecordedArray
from vtr_jax.parity.systems import SYSTEMS

INPUTS = ("image", "token_ids", "token_mask", "video_mask", "video")
NOT_OUTPUTS = ("gradnorm/", "gradhead/", "paramnorm/", "paramhead/", "head/", "sum/")

ZERO_GRADIENT = 1e-6  # absolute, for gradients that are zero in exact arithmetic

TextArrays = tuple[jax.Array, jax.Array]
VideoArrays = tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]


@dataclasses.dataclass(frozen=True)
class Deviation:
    """How far one array is from its record, in units of its tolerance (1 = just allowed)."""

    name: str
    kind: str
    deviation: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the deviation is within the tolerance; NaN never is."""
        return bool(self.deviation <= self.tolerance)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a case feeds: captions and frames (channels last, already normalised)."""

    token_ids: np.ndarray
    token_mask: np.ndarray
    frames: np.ndarray
    frame_mask: np.ndarray
    picks: Picks | None = None


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a retriever makes of the inputs.

    scores, train_scores: the named matrices of evaluation and of training. loss: (loss, terms).
    """

    retriever: Retriever
    inputs: Inputs
    text: TextFeatures
    video: VideoFeatures

    @functools.cached_property
    def scores(self) -> dict[str, jax.Array]:
        """The named matrices of evaluation, [T,V] (one of them may be [V,T])."""
        return self.retriever.scores(self.text, self.video)

    @functools.cached_property
    def train_scores(self) -> dict[str, jax.Array]:
        """The named matrices of training, as scores."""
        return self.retriever.scores(self.text, self.video, train=True)

    @functools.cached_property
    def loss(self) -> tuple[jax.Array, dict[str, Any]]:
        """(training loss, its terms by name), with the recorded picks of a loss that draws."""
        return self.retriever.loss(self.text, self.video, picks=self.inputs.picks)


def retriever_of(case: Case, weights: dict[str, Any] | None = None) -> Retriever:
    """The retriever a case describes, from its own weights or those given."""
    options = SYSTEMS[case.system].options(case.config)
    return retriever_from_state_dict(weights or case_weights(case), case.system, **options)


def in_recorded_state(retriever: Retriever, case: Case, arrays: Arrays) -> Retriever:
    """The retriever with the state a case was recorded in, where its system has one."""
    state = SYSTEMS[case.system].state
    return retriever if state is None else retriever.with_state(state(case, arrays))


def case_inputs(case: Case, arrays: Arrays) -> Inputs:
    """The inputs of a case; pictures are its own `video` or `image`, or follow from its salt.

    `video` is [B,F,3,R,R] float32, normalised, channels first, as PyTorch programs feed it;
    `image` [B,3,R,R] is clips of one frame. Raises ValueError where there is nothing of the three,
    and for regenerated pictures that are not those the case was recorded with.
    """
    system, token_ids = SYSTEMS[case.system], arrays["token_ids"]
    token_mask = arrays.get("token_mask", (token_ids != 0).astype(np.int32))
    video = _pictures(case, arrays)
    mask = arrays.get("video_mask", np.ones(video.shape[:2], np.int32))
    picks = None
    if system.picks is not None and system.picks[0] in arrays:
        picks = (jnp.asarray(arrays[system.picks[0]]), jnp.asarray(arrays[system.picks[1]]))
    return Inputs(
        token_ids.astype(np.int32),
        token_mask.astype(np.int32),
        np.moveaxis(video, 2, -1),
        mask.astype(np.int32),
        picks,
    )


def _pictures(case: Case, arrays: Arrays) -> np.ndarray:
    """Normalised frames, channels first, float32 [B,F,3,R,R], zero where they are no frames."""
    if "video" in arrays:
        video = np.array(arrays["video"], np.float32)
    elif "image" in arrays:
        video = np.array(arrays["image"], np.float32)[:, None]
    else:
        return _regenerated(case, arrays)
    if "video_mask" in arrays:
        video[arrays["video_mask"] == 0] = 0.0
    return video


def _regenerated(case: Case, arrays: Arrays) -> np.ndarray:
    if "salt" not in case.record:
        raise ValueError(
            f"{case.path.with_suffix('.npz')}: expected the frames that the program was fed; "
            "record them as `video` (float32 [B,F,3,R,R], normalised, channels first)"
        )
    resolution = SYSTEMS[case.system].resolution(case.config)
    picture = (3, resolution, resolution)
    if "video_mask" in arrays:
        mask, name = arrays["video_mask"], "video"
        video = normal_frames(case.record["salt"], name, (*mask.shape, *picture))
        video[mask == 0] = 0.0
    else:
        name, images = "image", len(arrays.get("image_features", arrays["token_ids"]))
        video = normal_frames(case.record["salt"], name, (images, *picture))[:, None]
    check_frames_checksum(case, video, name)
    return video


def check_frames_checksum(case: Case, video: np.ndarray, name: str = "video") -> None:
    """Raise ValueError if regenerated pictures are not those the case was recorded with."""
    stored = {**case.record.get("inputs", {}), **case.record}
    contiguous = np.ascontiguousarray(video).tobytes()
    found = {
        f"{name}_sha256": hashlib.sha256(contiguous).hexdigest(),
        f"{name}_crc32": zlib.crc32(contiguous),
    }
    if any(key in stored and stored[key] != value for key, value in found.items()):
        raise ValueError(f"{case.name}: the regenerated frames differ from the recorded ones")


def run_case(retriever: Retriever, inputs: Inputs) -> Outputs:
    """Encode the inputs of a case."""
    text = retriever.encode_text(inputs.token_ids, inputs.token_mask)
    video = retriever.encode_video(inputs.frames, inputs.frame_mask)
    return Outputs(retriever, inputs, text, video)


def loss_gradients(retriever: Retriever, inputs: Inputs) -> Retriever:
    """The training loss's gradient of every parameter.

    The towers are differentiated apart from the head, so that cases with equal towers share
    their compilation.
    """

    def text_of(r: Retriever) -> TextArrays:
        text = r.encode_text(inputs.token_ids, inputs.token_mask)
        return text.sentence, text.tokens

    def video_of(r: Retriever) -> VideoArrays:
        video = r.encode_video(inputs.frames, inputs.frame_mask)
        return video.frames, video.temporal, video.pooled, video.patches

    def loss_of(r: Retriever, text: TextArrays, video: VideoArrays) -> jax.Array:
        loss, _ = r.loss(
            TextFeatures(*text, jnp.asarray(inputs.token_mask)),
            VideoFeatures(*video, jnp.asarray(inputs.frame_mask)),
            picks=inputs.picks,
        )
        return loss

    text, text_back = jax.vjp(text_of, retriever)
    video, video_back = jax.vjp(video_of, retriever)
    own, of_text, of_video = jax.grad(loss_of, argnums=(0, 1, 2))(retriever, text, video)
    return jax.tree.map(
        lambda *parts: sum(parts), own, text_back(of_text)[0], video_back(of_video)[0]
    )


def deviation(
    kind: str,
    name: str,
    ours: np.ndarray,
    recorded: np.ndarray,
    tolerance: float | None = None,
) -> Deviation:
    """The largest difference of two arrays in the measure of their kind; NaN equals NaN.

    tolerance: None for the kind's. A difference in shape counts as infinite, and so does an
    infinite value that the other array does not have.
    """
    tolerance = TOLERANCES[kind] if tolerance is None else tolerance
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if ours.shape != recorded.shape:
        return Deviation(name, kind, float("inf"), tolerance)
    compared = np.isfinite(recorded)
    elsewhere_equal = np.array_equal(ours[~compared], recorded[~compared], equal_nan=True)
    if not elsewhere_equal or not np.isfinite(ours[compared]).all():
        return Deviation(name, kind, float("inf"), tolerance)
    finite = recorded[compared]
    difference = np.abs(ours[compared] - finite)
    largest = float(difference.max()) if difference.size else 0.0
    if kind == "logits" and finite.size:
        largest /= float(np.ptp(finite)) or 1.0
    if kind == "loss" and finite.size:
        largest /= float(np.abs(finite).max()) or 1.0
    return Deviation(name, kind, largest, tolerance)


def compare_gradients(gradients: Retriever, arrays: dict[str, np.ndarray]) -> list[Deviation]:
    """Norm and first values of every parameter's gradient, by original key.

    A key that the record lacks counts as zero there. Raises ValueError for a recorded key that
    the retriever does not have.
    """
    deviations = []
    named = to_state_dict(gradients)
    unknown = [
        name
        for name in arrays
        if name.startswith("gradnorm/") and name.removeprefix("gradnorm/") not in named
    ]
    if unknown:
        raise ValueError(f"nothing here corresponds to the recorded {', '.join(unknown)}")
    for key, gradient in named.items():
        recorded_norm = float(arrays.get(f"gradnorm/{key}", 0.0))
        norm = float(np.linalg.norm(gradient.astype(np.float64)))
        difference = abs(norm - recorded_norm)
        if recorded_norm < ZERO_GRADIENT:
            deviations.append(Deviation(f"gradnorm/{key}", "zero", difference, ZERO_GRADIENT))
            continue
        deviations.append(
            Deviation(
                f"gradnorm/{key}",
                "gradient norm",
                difference / recorded_norm,
                TOLERANCES["gradient norm"],
            )
        )
        head = arrays[f"gradhead/{key}"].astype(np.float64).ravel()
        ours = gradient.astype(np.float64).ravel()[: len(head)]
        worst = float(np.abs(ours - head).max()) / recorded_norm
        deviations.append(
            Deviation(f"gradhead/{key}", "gradient head", worst, TOLERANCES["gradient head"])
        )
    return deviations


def compare_case(case: Case, retriever: Retriever | None = None) -> list[Deviation]:
    """Everything a case recorded against what a retriever computes.

    retriever: None for one with the case's own weights. Raises ValueError for a recorded array
    that nothing here is compared with.
    """
    arrays = case.arrays()
    retriever = in_recorded_state(retriever or retriever_of(case), case, arrays)
    inputs = case_inputs(case, arrays)
    outputs = run_case(retriever, inputs)
    deviations = [
        _compare_array(name, array.value(outputs), recorded, array, case, outputs)
        for name, array, recorded in _compared_arrays(case, arrays)
        if array.value is not None
    ]
    if any(name.startswith("gradnorm/") for name in arrays):
        deviations += compare_gradients(loss_gradients(retriever, inputs), arrays)
    if not deviations:
        raise ValueError(f"{case.name}: recorded nothing that could be compared")
    return deviations


def _compare_array(
    name: str, ours: Any, recorded: np.ndarray, array: RecordedArray, case: Case, outputs: Outputs
) -> Deviation:
    """One array against its record, in the rows that mean something."""
    ours = np.asarray(ours)
    if array.rows is not None and ours.shape == recorded.shape:
        meant = np.asarray(array.rows(outputs)) > 0
        ours, recorded = ours[meant], recorded[meant]
    tolerance = None if array.tolerance is None else array.tolerance(case, recorded)
    return deviation(array.kind, name, ours, recorded, tolerance)


def _compared_arrays(case: Case, arrays: Arrays) -> Iterator[tuple[str, RecordedArray, np.ndarray]]:
    """The recorded arrays that are neither inputs nor gradients, each with its row."""
    system = SYSTEMS[case.system]
    inputs = {*INPUTS, *(system.picks or ()), *system.inputs}
    for name, recorded in arrays.items():
        if name in inputs or name.startswith(NOT_OUTPUTS):
            continue
        array = system.arrays.get(name)
        if array is None:
            raise ValueError(f"{case.name}: nothing here corresponds to the recorded {name!r}")
        yield name, array, recorded
