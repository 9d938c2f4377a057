"""MONAI Deploy application: a folder of DICOM studies in, one virtual DES object for each low-energy mammogram out.

Example: ulimit -s 32768 && python scripts/deploy_app/app.py -i study -o out -m .

It needs the packages of scripts/deploy_app/requirements.txt, in an environment of its own. NOT FOR DIAGNOSIS.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from monai.deploy.conditions import CountCondition  # type: ignore[import-not-found]
from monai.deploy.core import AppContext, Application, Image, IOType  # type: ignore[import-not-found]
from monai.deploy.operators import DICOMDataLoaderOperator, IOMapping  # type: ignore[import-not-found]
from monai.deploy.operators.monai_bundle_inference_operator import (  # type: ignore[import-not-found]
    get_bundle_config,
)

from bundle.inference import Sources
from scripts.deploy_app.model import Settings, find_model
from scripts.deploy_app.operators import (
    SERIES,
    MammogramLoader,
    MammogramSelector,
    VirtualDESInference,
    VirtualDESWriter,
)

logger = logging.getLogger("cesm")


class VirtualContrastApp(Application):  # type: ignore[misc]
    """Study folder -> series -> images, one after the other -> virtual DES -> DICOM objects.

    Input folder, output folder and model come from ``-i``, ``-o`` and ``-m``, or from ``HOLOSCAN_INPUT_PATH``,
    ``HOLOSCAN_OUTPUT_PATH`` and ``HOLOSCAN_MODEL_PATH``, which a package sets. Everything else is set in the model's
    ``inference.json``.

    Attributes:
        inference_type: the SDK's operator for MONAI bundles, or one made from it.
        outcome: how many images are ``done`` and ``failed``, after the run.
    """

    inference_type: type[Any] = VirtualDESInference

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.outcome: Counter[str] = Counter(done=0, failed=0)
        super().__init__(*args, **kwargs)

    def compose(self) -> None:
        """Make the operators and connect them."""
        context: AppContext = Application.init_app_context(self.argv)
        source, target = Path(context.input_path).absolute(), Path(context.output_path).absolute()
        model = find_model(Path(context.model_path))
        logger.info("model %s, weights %s", model.path, model.weights)
        if model.path.is_dir():
            context.models = None  # the SDK has made a model without a network of the folder; it shall use bundle_path
        settings = Settings.of(model, get_bundle_config(str(model.path), ["inference"]))
        studies = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=source, name="studies")
        series = MammogramSelector(self, accepted=settings.accepted, name="series")
        images = MammogramLoader(
            self, load=settings.load, accepted=settings.accepted, outcome=self.outcome, name="images"
        )
        inference = self.inference_type(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            app_context=context,
            bundle_path=model.path,
            name="inference",
        )
        writer = VirtualDESWriter(
            self,
            sources=Sources(source, target),
            objects=settings.objects,
            outcome=self.outcome,
            name="writer",
        )
        self.add_flow(studies, series, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(series, images, {(SERIES, SERIES)})
        self.add_flow(images, inference, {("image", "image")})
        self.add_flow(inference, writer, {("pred", "pred")})


def main() -> int:
    """Run the application; return its exit status (1: an image failed, or there was none)."""
    app = VirtualContrastApp()
    app.run()
    done, failed = app.outcome["done"], app.outcome["failed"]
    logger.info("virtual DES: %d done, %d failed", done, failed)
    if not done and not failed:
        logger.error("no low-energy image and no ordinary mammogram in the studies: nothing was written")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
