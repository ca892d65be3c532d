"""What YAML may ask beside settings: `${classes_in:<folder>}`, the number of folders in a folder.

They read and change nothing.
"""

from __future__ import annotations

from omegaconf import OmegaConf

from progtrain.data.folders import count_classes


def register() -> None:
    """Make them known to OmegaConf; again is no mistake."""
    OmegaConf.register_new_resolver("classes_in", count_classes, replace=True)
