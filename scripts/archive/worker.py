"""What one worker does: hold the network of configs/inference.json, and apply it to the files it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from bundle.inference import ReportRow, VirtualDESWriter
from bundle.inference.report import reason_of
from bundle.weights import load_weights
from scripts.config_values import with_overrides

__all__ = ["ArchiveWorker", "Task", "told_by"]


@dataclass(frozen=True)
class Task:
    """What all workers do.

    Attributes:
        config: ``configs/inference.json`` with all overrides.
        run: what tells this run from others in the UIDs of DICOM objects: the same for all workers, so that one source
            series gives one series.
    """

    config: Mapping[str, Any]
    run: str


def told_by(error: BaseException) -> str:
    """What an error tells a user: MONAI wraps it in RuntimeErrors, and what it was raised from may say less."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


class _Collector:
    """Stands for the writer in the config: the same writing, but lines are collected where the writer has a report."""

    def __init__(self, writer: VirtualDESWriter) -> None:
        self.writer = writer
        self.pending = writer.pending
        self.rows: list[ReportRow] = list(writer.sources.known)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        state: Any = engine.state
        self.rows += [self.writer.write(item, output) for item, output in zip(state.batch, state.output, strict=True)]


class ArchiveWorker:
    """The workflow of ``configs/inference.json`` on one list of files after another, with the network kept.

    Args:
        task: what to do.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._kept: dict[str, Any] = {}

    def problem(self) -> str | None:
        """Load the weights and whatever is kept; say what is wrong with them or with the config, or None."""
        try:
            parser = self._parser({})
            parser.get_parsed_content("initialize")
            network = load_weights(parser.get_parsed_content("network"), parser.get_parsed_content("model_path"))
            objects = parser.get_parsed_content("dicom_objects")
            objects.run = self.task.run
            self._kept = {"network": network, "dicom_objects": objects}
            self._workflow([])  # a value that does not fit is told once, and not for every file
        except Exception as error:  # a config may name anything
            return told_by(error)
        return None

    def infer(self, files: Sequence[str]) -> tuple[list[ReportRow], str | None]:
        """Make the virtual DES of these files.

        Returns:
            One line of the report for each, and None; or the lines up to an error, and that error.
        """
        rows: list[ReportRow] = []
        try:
            collector, evaluator = self._workflow(files)
            rows = collector.rows
            if collector.pending:
                evaluator.run()
        except Exception as error:  # the network may ask for more memory than there is
            return rows, reason_of(error)
        return rows, None

    def _workflow(self, files: Sequence[str]) -> tuple[_Collector, Any]:
        parser = self._parser(self._kept)
        parser["handlers#0#files"] = list(files)
        collector = _Collector(parser.get_parsed_content("handlers#0"))
        parser = self._parser({**self._kept, "handlers#0": collector})
        return collector, parser.get_parsed_content("evaluator")

    def _parser(self, kept: Mapping[str, Any]) -> ConfigParser:
        parser = ConfigParser(config=with_overrides(self.task.config, {}))
        for name, value in kept.items():
            parser[name] = value
        return parser
