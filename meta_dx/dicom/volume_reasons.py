"""Why slices are no volume."""

from __future__ import annotations

from enum import StrEnum


class VolumeReason(StrEnum):
    """Every reason for which slices are no volume. The value is what tables and ``--json`` show."""

    LOCALISER = "localiser"
    COLOUR = "colour"
    NOT_RECORDED = "not_recorded"
    TOO_MANY_FRAMES = "too_many_frames"
    NO_GEOMETRY = "no_geometry"
    NO_PIXEL_SPACING = "no_pixel_spacing"
    IMPOSSIBLE_ORIENTATION = "impossible_orientation"
    TOO_FEW_SLICES = "too_few_slices"
    MIXED_FRAME_OF_REFERENCE = "mixed_frame_of_reference"
    MIXED_SIZE = "mixed_size"
    MIXED_ORIENTATION = "mixed_orientation"
    MIXED_PIXEL_SPACING = "mixed_pixel_spacing"
    DUPLICATE_POSITION = "duplicate_position"
    GANTRY_TILT = "gantry_tilt"
    SCATTERED_POSITIONS = "scattered_positions"
    GAP = "gap"
    IRREGULAR_SPACING = "irregular_spacing"
    MIXED_RESCALE = "mixed_rescale"

    @property
    def sentence(self) -> str:
        """What is wrong, in one sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    VolumeReason.LOCALISER: "The image is a localiser (scout), made to plan the others.",
    VolumeReason.COLOUR: "The image is in colour and has no physical units.",
    VolumeReason.NOT_RECORDED: "The batch was ingested before the geometry of images was recorded.",
    VolumeReason.TOO_MANY_FRAMES: "The object has more than 4096 frames, whose geometry is not kept.",
    VolumeReason.NO_GEOMETRY: "Position or orientation in the patient is missing.",
    VolumeReason.NO_PIXEL_SPACING: "PixelSpacing is missing, or not above zero.",
    VolumeReason.IMPOSSIBLE_ORIENTATION: "The two axes of the image are not at right angles, or not of length 1.",
    VolumeReason.TOO_FEW_SLICES: "There are fewer than three slices, so even spacing cannot be checked.",
    VolumeReason.MIXED_FRAME_OF_REFERENCE: "The slices have different frames of reference.",
    VolumeReason.MIXED_SIZE: "The slices have different numbers of rows or columns.",
    VolumeReason.MIXED_ORIENTATION: "The slices are not parallel, or turned within their plane.",
    VolumeReason.MIXED_PIXEL_SPACING: "The slices have different pixel spacing.",
    VolumeReason.DUPLICATE_POSITION: "Several slices lie at one position, and no attribute separates them.",
    VolumeReason.GANTRY_TILT: "Each slice is shifted sideways against the one before (gantry tilt).",
    VolumeReason.SCATTERED_POSITIONS: "The slices do not lie behind one another.",
    VolumeReason.GAP: "Slices are missing.",
    VolumeReason.IRREGULAR_SPACING: "The slices are not evenly spaced.",
    VolumeReason.MIXED_RESCALE: "Some slices of a CT series have a rescale, others none or slope 1 and intercept 0.",
}
