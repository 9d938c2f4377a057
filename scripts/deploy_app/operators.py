"""What the MONAI Deploy App SDK lacks for mammograms: a selector, a loader and a writer of derived objects.

The SDK's selector judges a series by its first object, its volume operator fails on series of one frame, its inference
operator casts a prediction to 8 bits, and it has no writer for derived mammograms.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from monai.data.meta_tensor import MetaTensor
from monai.deploy.conditions import BooleanCondition  # type: ignore[import-not-found]
from monai.deploy.core import ConditionType, Image, Operator  # type: ignore[import-not-found]
from monai.deploy.core.domain.dicom_series_selection import (  # type: ignore[import-not-found]
    SelectedSeries,
    StudySelectedSeries,
)
from monai.deploy.operators import (  # type: ignore[import-not-found]
    DICOMSeriesSelectorOperator,
    MonaiBundleInferenceOperator,
)
from monai.utils.misc import ImageMetaKey

from bundle.dicom import VirtualDESObjects, kind_of, refusal
from bundle.inference import Sources
from bundle.inference.report import reason_of

__all__ = ["MammogramLoader", "MammogramSelector", "VirtualDESInference", "VirtualDESWriter"]

SERIES = "study_selected_series_list"
logger = logging.getLogger("cesm")


class MammogramSelector(DICOMSeriesSelectorOperator):  # type: ignore[misc]
    """Select the series that hold a low-energy image or an ordinary mammogram; name every other object in the log.

    Every object is judged by itself, by the rule of the bundle's inference (``bundle.dicom.refusal``): vendors put the
    images of a view into one series or into several.

    Input ``dicom_study_list``, output ``study_selected_series_list``, as those of the SDK's operator.

    Args:
        fragment: the application.
        accepted: kinds of object that may be given to the network.
    """

    def __init__(self, fragment: Any, *args: Any, accepted: Collection[str], **kwargs: Any) -> None:
        self._accepted = accepted
        super().__init__(fragment, *args, **kwargs)

    def filter(
        self,
        selection_rules: object,
        dicom_study_list: Sequence[Any],
        all_matched: bool = False,
        sort_by_sop_instance_count: bool = False,
    ) -> list[Any]:
        """The studies with their selected series; the SDK's rules are not used."""
        selected = []
        for study in dicom_study_list:
            chosen = StudySelectedSeries(study)
            for series in study.get_all_series():
                kinds = [kind for one in series.get_sop_instances() if (kind := self._accepted_kind(one))]
                if kinds:
                    chosen.add_selected_series(SelectedSeries(kinds[0], series, None))
            if chosen.selected_series:
                selected.append(chosen)
        return selected

    def _accepted_kind(self, instance: Any) -> str | None:
        header = instance.get_native_sop_instance()
        reason = refusal(header, self._accepted)
        if reason is None:
            return str(kind_of(header)[0])
        logger.info("left out: %s: %s", header.filename, reason)
        return None


def _images(selection: Sequence[Any], accepted: Collection[str]) -> list[Path]:
    """The files of all objects that may be given to the network, sorted."""
    headers = (
        instance.get_native_sop_instance()
        for study in selection
        for selected in study.selected_series
        for instance in selected.series.get_sop_instances()
    )
    return sorted(Path(header.filename) for header in headers if refusal(header, accepted) is None)


class MammogramLoader(Operator):  # type: ignore[misc]
    """Emit one image after the other of the selected series.

    The file is read by the very transform that the SDK takes out of the bundle's preprocessing, so that the network
    gets what the bundle's own inference gives it. An image that cannot be read is reported and left out.

    Input ``study_selected_series_list``, output ``image``: (W, H) float32, with MONAI's metadata.

    Args:
        fragment: the application.
        load: a path to the image, as ``LoadImage`` gives it.
        accepted: kinds of object that may be given to the network; others in the same series are passed over.
        outcome: counts ``failed``.
    """

    def __init__(
        self,
        fragment: Any,
        *args: Any,
        load: Callable[[str], MetaTensor],
        accepted: Collection[str],
        outcome: Counter[str],
        **kwargs: Any,
    ) -> None:
        self._load, self._accepted, self._outcome = load, accepted, outcome
        self._left: Iterator[Path] | None = None
        self._running = BooleanCondition(fragment, True, name="images_left")
        super().__init__(fragment, self._running, *args, **kwargs)

    def setup(self, spec: Any) -> None:
        """One input that arrives once, and an output that is used as often as there are images."""
        spec.input(SERIES).condition(ConditionType.NONE)
        spec.output("image")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Emit the next image; after the last one stop being called."""
        selection = op_input.receive(SERIES)
        if selection is not None:
            self._left = iter(_images(selection, self._accepted))
        if self._left is None:  # nothing has arrived yet
            return
        for path in self._left:
            if (image := self._image(path)) is not None:
                op_output.emit(image, "image")
                return
        self._running.disable_tick()

    def _image(self, path: Path) -> Any:
        try:
            loaded = self._load(str(path))
        except Exception as error:  # decoders raise whatever they like
            self._outcome["failed"] += 1
            logger.warning("%s: %s", path, reason_of(error))
            return None
        return Image(loaded.numpy(), metadata=dict(loaded.meta))


class VirtualDESInference(MonaiBundleInferenceOperator):  # type: ignore[misc]
    """The SDK's inference operator, whose prediction keeps all grey levels.

    The SDK casts an output of type ``image`` to 8 bits. Here output ``pred`` is (W, H) float32 in 0..255, with the
    metadata of the image.
    """

    def _send_output(self, value: Any, name: str, metadata: dict[str, Any], op_output: Any, context: Any) -> None:
        op_output.emit(Image(value[0].detach().cpu().numpy(), metadata=metadata), name)


class VirtualDESWriter(Operator):  # type: ignore[misc]
    """Write one derived object for each prediction, where the inference of the bundle would write it.

    Input ``pred``: (W, H) in 0..255 on the grid of the source, whose path is in the metadata.

    Args:
        fragment: the application.
        sources: says where the object of a file is written: ``a/b.dcm`` becomes ``a/b_virtual_des.dcm``.
        objects: makes the DICOM objects.
        outcome: counts ``done`` and ``failed``.
    """

    def __init__(
        self,
        fragment: Any,
        *args: Any,
        sources: Sources,
        objects: VirtualDESObjects,
        outcome: Counter[str],
        **kwargs: Any,
    ) -> None:
        self._sources, self._objects, self._outcome = sources, objects, outcome
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: Any) -> None:
        """One input."""
        spec.input("pred")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Write the object; one that cannot be written is reported."""
        image = op_input.receive("pred")
        source = Path(str(image.metadata()[ImageMetaKey.FILENAME_OR_OBJ]))
        target = self._sources.output_path(source)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            notes = self._objects.write(image.asnumpy(), source, target)
        except Exception as error:  # pydicom and highdicom raise whatever they like on a faulty header
            self._outcome["failed"] += 1
            logger.warning("%s: %s", source, reason_of(error))
            return
        self._outcome["done"] += 1
        logger.info("wrote %s%s", target, "".join(f"; {note}" for note in notes))
