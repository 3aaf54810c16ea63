"""How far a retriever is from recorded numbers, array by array, gradients included."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vtr_jax.convert.from_state_dict import retriever_from_state_dict, to_state_dict
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.retriever import Retriever
from vtr_jax.parity.arrays import ARRAYS, INPUTS
from vtr_jax.parity.cases import Case, case_weights, normal_frames

# What a careful float32 port keeps: it reaches about a tenth of these.
TOLERANCES: dict[str, float] = {
    "feature": 1e-5,  # absolute
    "inside a head": 5e-6,  # absolute
    "logits": 1e-4,  # of (max - min)
    "loss": 1e-5,  # relative
    "gradient norm": 1e-3,  # relative
    "gradient head": 1e-3,  # of the key's gradient norm
}
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


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a retriever makes of the inputs."""

    retriever: Retriever
    inputs: Inputs
    text: TextFeatures
    video: VideoFeatures


def retriever_of(case: Case, weights: dict[str, Any] | None = None) -> Retriever:
    """The retriever a case describes, from its own weights or those given."""
    options: dict[str, Any] = {}
    task = case.config.get("task_config", {})
    for name in ("sim_header", "linear_patch", "loose_type"):
        if name in task:
            options[name] = task[name]
    clip = case.config.get("clip", case.config)
    if "transformer_heads" in clip:
        options["text_heads"] = clip["transformer_heads"]
    return retriever_from_state_dict(weights or case_weights(case), case.system, **options)


def case_inputs(case: Case, arrays: dict[str, np.ndarray]) -> Inputs:
    """The inputs of a case, pictures regenerated from its salt."""
    salt, token_ids = case.record["salt"], arrays["token_ids"]
    token_mask = arrays.get("token_mask", (token_ids != 0).astype(np.int32))
    clip = case.config.get("clip", case.config)
    resolution = clip["image_resolution"]
    if "video_mask" in arrays:
        mask = arrays["video_mask"]
        video = normal_frames(salt, "video", (*mask.shape, 3, resolution, resolution))
        video[mask == 0] = 0.0
        check_frames_checksum(case, video)
        frames = np.moveaxis(video, 2, -1)
    else:
        image = normal_frames(salt, "image", (len(token_ids), 3, resolution, resolution))
        frames = np.moveaxis(image, 1, -1)[:, None]
        mask = np.ones(frames.shape[:2], np.int32)
    return Inputs(
        token_ids.astype(np.int32), token_mask.astype(np.int32), frames, mask.astype(np.int32)
    )


def check_frames_checksum(case: Case, video: np.ndarray) -> None:
    """Raise ValueError if regenerated pictures are not those the case was recorded with."""
    recorded = case.record.get("video_sha256")
    if recorded is not None and hashlib.sha256(video.tobytes()).hexdigest() != recorded:
        raise ValueError(f"{case.name}: the regenerated frames differ from the recorded ones")
    recorded = case.record.get("video_crc32")
    if recorded is not None and zlib.crc32(video.tobytes()) != recorded:
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
        )
        return loss

    text, text_back = jax.vjp(text_of, retriever)
    video, video_back = jax.vjp(video_of, retriever)
    own, of_text, of_video = jax.grad(loss_of, argnums=(0, 1, 2))(retriever, text, video)
    return jax.tree.map(
        lambda *parts: sum(parts), own, text_back(of_text)[0], video_back(of_video)[0]
    )


def deviation(kind: str, name: str, ours: np.ndarray, recorded: np.ndarray) -> Deviation:
    """The largest difference of two arrays in the measure of their kind; NaN equals NaN.

    A difference in shape counts as infinite.
    """
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if ours.shape != recorded.shape or (np.isnan(ours) != np.isnan(recorded)).any():
        return Deviation(name, kind, float("inf"), TOLERANCES[kind])
    finite = recorded[~np.isnan(recorded)]
    difference = np.abs(ours[~np.isnan(ours)] - finite)
    largest = float(difference.max()) if difference.size else 0.0
    if kind == "logits" and finite.size:
        largest /= float(np.ptp(finite)) or 1.0
    if kind == "loss" and finite.size:
        largest /= float(np.abs(finite).max()) or 1.0
    return Deviation(name, kind, largest, TOLERANCES[kind])


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
    retriever = retriever or retriever_of(case)
    inputs = case_inputs(case, arrays)
    outputs = run_case(retriever, inputs)
    table = ARRAYS[case.system]
    deviations = []
    for name, recorded in arrays.items():
        if name in INPUTS or name.startswith(("gradnorm/", "gradhead/", "head/", "sum/")):
            continue
        array = table.get(name)
        if array is None:
            raise ValueError(f"{case.name}: nothing here corresponds to the recorded {name!r}")
        if array.value is not None:
            deviations.append(deviation(array.kind, name, array.value(outputs), recorded))
    if any(name.startswith("gradnorm/") for name in arrays):
        deviations += compare_gradients(loss_gradients(retriever, inputs), arrays)
    if not deviations:
        raise ValueError(f"{case.name}: recorded nothing that could be compared")
    return deviations
