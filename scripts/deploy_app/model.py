"""Find the model that MONAI Deploy hands to an application, and read the settings that its inference config holds."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle.config_parser import ConfigParser
from monai.data.meta_tensor import MetaTensor

from bundle.dicom import VirtualDESObjects

__all__ = ["Model", "Settings", "find_model"]


class Model(NamedTuple):
    """Where the SDK's inference operator reads the model."""

    path: Path
    """Bundle folder (``configs/`` and ``models/`` in it), or TorchScript archive with the configs inside."""
    weights: Path
    """File of the weights that are used."""


def find_model(path: Path) -> Model:
    """The one model at ``path``, or in its only sub-folder that has one.

    A package keeps its model in a sub-folder of the models folder, so folders are searched one level deep. Of a bundle
    folder's weights ``models/model.ts`` comes first, as in the SDK.

    Raises:
        FileNotFoundError: nothing there, or a bundle without weights.
        ValueError: more than one model.
    """
    path = path.absolute()
    if path.is_file():
        return Model(path, path)
    if not path.is_dir():
        raise FileNotFoundError(f"no model at {path}; give a bundle folder or a TorchScript archive with -m")
    if (found := _model_in(path)) is not None:
        return found
    models = [model for folder in sorted(path.iterdir()) if folder.is_dir() and (model := _model_in(folder))]
    if len(models) > 1:
        names = ", ".join(str(model.path.relative_to(path)) for model in models)
        raise ValueError(f"{len(models)} models in {path}: {names}; expected one, give its own path with -m")
    if not models:
        raise FileNotFoundError(
            f"no model in {path}; expected a bundle folder (configs/inference.json and models/model.ts or model.pt) "
            "or a TorchScript archive (.ts)"
        )
    return models[0]


def _model_in(folder: Path) -> Model | None:
    if (folder / "configs" / "metadata.json").is_file():
        for name in ("model.ts", "model.pt"):
            if (weights := folder / "models" / name).is_file():
                return Model(folder, weights)
        raise FileNotFoundError(
            f"the bundle {folder} has neither models/model.ts nor models/model.pt; train it or copy its weights there"
        )
    archives = sorted(folder.glob("*.ts"))
    return Model(archives[0], archives[0]) if len(archives) == 1 else None


class Settings(NamedTuple):
    """What the application takes from ``inference.json`` beside what the SDK's inference operator takes itself."""

    accepted: Collection[str]
    """Kinds of DICOM object (``bundle.dicom.Kind``) that may be given to the network."""
    load: Callable[[str], MetaTensor]
    """A path to the image, (W, H) float32, by the transform of the preprocessing that the SDK leaves out."""
    objects: VirtualDESObjects
    """Makes the DICOM objects."""

    @classmethod
    def of(cls, model: Model, config: ConfigParser) -> Settings:
        """The settings of ``model`` in its parsed inference config.

        Raises:
            ValueError: no inference config, or one whose preprocessing does not begin by loading the image.
        """
        if "preprocessing" not in config:
            raise ValueError(
                f"no inference config in {model.path}; the SDK finds that of a TorchScript archive only under the name "
                "with which it was exported, such as model.ts"
            )
        config["model_path"] = str(model.weights)
        steps = config.get_parsed_content("preprocessing").transforms
        loading: Any = next((step for step in steps if "LoadImage" in type(step).__name__), None)
        if loading is None:
            raise ValueError(
                f"the preprocessing of {model.path} begins with {type(steps[0]).__name__}, expected LoadImaged; give a "
                "model of this bundle"
            )

        def load(path: str) -> MetaTensor:
            image: MetaTensor = loading({"image": path})["image"]
            return image

        return cls(config.get_parsed_content("accepted_kinds"), load, config.get_parsed_content("dicom_objects"))
