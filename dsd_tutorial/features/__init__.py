"""What the features of a U-Net know (Revelio, arXiv 2411.16725): probes, sparse units, steering.

found = collect(model, scenes, ["up.0"], steps=[300], kinds=["positions"])
sae = fit_autoencoder(label_places(scenes, found["up.0", 300, "positions"]).features)
with steer(model, "up.0", sae.decoder[unit], 0.5):
    model.sample(["a circle"])
"""

# What is imported for type checkers is what `lazily` offers; "as" tells them that it is offered.
from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.features.autoencoder import SparseAutoencoder as SparseAutoencoder
    from dsd_tutorial.features.autoencoder import fit_autoencoder as fit_autoencoder
    from dsd_tutorial.features.capturing import capture as capture
    from dsd_tutorial.features.capturing import choose_blocks as choose_blocks
    from dsd_tutorial.features.capturing import grid as grid
    from dsd_tutorial.features.capturing import pooled as pooled
    from dsd_tutorial.features.capturing import positions as positions
    from dsd_tutorial.features.collecting import collect as collect
    from dsd_tutorial.features.places import VALUES as VALUES
    from dsd_tutorial.features.places import label_positions as label_positions
    from dsd_tutorial.features.places import label_regions as label_regions
    from dsd_tutorial.features.probing import answers as answers
    from dsd_tutorial.features.probing import probe as probe
    from dsd_tutorial.features.probing import probe_scenes as probe_scenes
    from dsd_tutorial.features.rivals import neurons as neurons
    from dsd_tutorial.features.rivals import principal_axes as principal_axes
    from dsd_tutorial.features.rivals import random_axes as random_axes
    from dsd_tutorial.features.steering import random_direction as random_direction
    from dsd_tutorial.features.steering import shows as shows
    from dsd_tutorial.features.steering import steer as steer
    from dsd_tutorial.features.units import judge_units as judge_units

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
