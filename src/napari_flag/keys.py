"""Every AnnData key, layer name and metadata key, written once.

The prediction file is an AnnData whose rows are spots in the order given, named by the ids given.
"""

from typing import Final

# --- the prediction file -----------------------------------------------------------------------
SPATIAL: Final = "spatial"
"""``obsm`` key: (n, 2) float64, (x, y) spot centres in level-0 pixels; also the ``uns`` key."""
ARRAY_ROW: Final = "array_row"
ARRAY_COL: Final = "array_col"
"""``obs`` columns: integer array coordinates, present where the array is known."""
DISTANCE: Final = "training_distance"
"""``obs`` column: float32, how far the tile lies from the training tissue; 1 is where unlike begins.

Absent, as `UNLIKE` is, when the weights cannot judge it (see `model.familiarity`)."""
UNLIKE: Final = "unlike_training"
"""``obs`` column: float32 0–1, the share of training spots, of sections left out, that lie nearer."""
SAMPLE: Final = "sample"
"""``layers`` key: one joint sample, float32, log2(count + 1)."""
SPREAD: Final = "sd"
"""``layers`` key: standard deviation over samples, float32; absent when one sample was drawn."""
MEASURED: Final = "measured"
"""``layers`` key: measured expression of the same spots, log2(count + 1); NaN where not measured."""
DOMAIN: Final = "domain"
"""``obs`` column: categorical, the spatial domain of a spot."""
MORAN: Final = "moranI"
"""``uns`` key: Moran's I per gene as squidpy writes it."""
PROVENANCE: Final = "napari_flag"
"""``uns`` key: everything needed to run the prediction again (see `Provenance` keys below)."""

# --- inside uns["napari_flag"] -------------------------------------------------------------------
UNITS: Final = "units"
SLIDE_NAME: Final = "slide_name"
SLIDE_WIDTH: Final = "slide_width_px"
SLIDE_HEIGHT: Final = "slide_height_px"
MPP: Final = "um_per_px"
MPP_SOURCE: Final = "um_per_px_source"
SPOT_DIAMETER_UM: Final = "spot_diameter_um"
SPOT_PITCH_UM: Final = "spot_pitch_um"
LATTICE: Final = "lattice"
TILE_PX: Final = "tile_px"
TILE_UM_PER_PX: Final = "tile_um_per_px"
ENCODER: Final = "encoder"
WEIGHTS_NAME: Final = "weights_name"
WEIGHTS_HASH: Final = "weights_sha256"
TRAINING_SLIDES: Final = "weights_trained_on"
SAMPLER: Final = "sampler"
STEPS: Final = "steps"
SAMPLES: Final = "samples"
SEED: Final = "seed"
DEVICE: Final = "device"
VERSIONS: Final = "versions"
FAMILIARITY: Final = "familiarity"
"""A mapping of the next four, over all spots of the slide; absent when the weights cannot judge it."""
UNLIKE_FROM: Final = "unlike_from"
SHARE_UNLIKE: Final = "share_unlike"
SHARE_UNLIKE_ALIGNED: Final = "share_unlike_with_slide_aligned"
UNLIKE_WARNING: Final = "warning"
"""One sentence; only there when most of the slide is unlike the training slides."""
NOTICES: Final = "notices"
COMMAND: Final = "command"
NOT_FOR_DIAGNOSIS: Final = "use"

EXPRESSION_UNITS: Final = "log2(count + 1)"
RESEARCH_USE_ONLY: Final = "Research use only, not for diagnosis."

# --- the data card of weights ----------------------------------------------------------------------
CARD_SCORE: Final = "out_of_distribution_score"
"""How the score was calibrated, or that there is none."""

# --- napari layer metadata -----------------------------------------------------------------------
LAYER_KIND: Final = "napari_flag.kind"
"""``layer.metadata`` key that marks our layers: "slide", "gene", "spots", "region"."""
LAYER_ADATA: Final = "adata"
"""``layer.metadata`` key: the AnnData drawn (napari-spatialdata's name for it)."""
LAYER_SLIDE: Final = "napari_flag.slide"
"""``layer.metadata`` key of a slide layer: the `Slide` drawn."""
