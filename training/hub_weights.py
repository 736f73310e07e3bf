"""What `weights` names by ids of the Hugging Face hub, as folders and files on this machine."""

from dataclasses import replace
from pathlib import Path

from glus.model.model_config import Method
from glus.model.released.hub import hub_id, local_segmenter, local_weights, title_of
from glus.model.released.release_methods import RELEASED_METHODS
from glus.training.release_info import VISION_TOWER
from glus.training.run_config import WeightsConfig


def fetch_weights(weights: WeightsConfig) -> tuple[WeightsConfig, list[str]]:
    """Fetch what is named by an id. Returns `weights` with local places alone, and a line to print for each of them.

    A complete checkpoint of the hub without a vision tower gets the one that its method is released without, from the
    hub too. Raises ModelError.
    """
    if not any(map(hub_id, weights.named.values())):
        return weights, []
    local, notes = {}, []
    for key, place in weights.named.items():
        found = (local_segmenter if key == "segmenter" else local_weights)(place)
        local[key] = str(found)
        if hub_id(place):
            notes.append(f"weights.{key}: {title_of(found.parent if found.is_file() else found)}, in {found}")
    if weights.complete and not weights.vision:
        method, place = weights.complete
        if hub_id(place) and (tower := missing_tower(Path(local[method]), method)):
            local["vision"] = str(local_weights(tower))
            notes.append(f"weights.vision: {title_of(Path(local['vision']))}, which {place} comes without")
    return replace(weights, **local), notes


def missing_tower(folder: Path, method: Method) -> str:
    """The hub's id of the vision tower that a released checkpoint needs; "" where `folder` holds one of its own."""
    return "" if (folder / VISION_TOWER).is_dir() else RELEASED_METHODS[method].tower
