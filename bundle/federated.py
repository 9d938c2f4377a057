"""The client of a federation: MONAI's, with the choice of which networks are exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import FlPhase, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor, nn

from bundle.overrides import known_ids, unknown_ids
from bundle.resumable_trainer import unwrap

__all__ = ["CESMAlgo", "Exchange", "exchanged_networks", "served_weights"]

Exchange = Literal["generator", "all"]
_SERVED = "network"
# Curves of their own: the received and the trained weights are both judged in an epoch.
_RECEIVED = {"summary_writer#log_dir": "$@output_dir + '/tensorboard/received'"}


def exchanged_networks(networks: Mapping[str, nn.Module], exchange: Exchange) -> nn.Module:
    """Return the module whose state dict travels between the sites and the server.

    Args:
        networks: the training's networks by name; ``network`` is the served generator LE -> DES.
        exchange: ``generator`` gives the served generator itself, so its keys are those of ``models/model.pt``;
            ``all`` gives every network, its keys with the network's name in front (``generator_ba.…``).

    Raises:
        ValueError: if ``exchange`` is neither.
    """
    if exchange not in get_args(Exchange):
        raise ValueError(f"exchange is {exchange!r}; expected one of {', '.join(get_args(Exchange))}")
    bare = {name: unwrap(network) for name, network in networks.items()}
    return bare[_SERVED] if exchange == "generator" else nn.ModuleDict(bare)


def served_weights(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the raw state dict of the served generator, as ``models/model.pt`` holds it.

    Args:
        weights: what was exchanged, of either kind: tensors or arrays by the names of :func:`exchanged_networks`.
    """
    tensors = {name: torch.as_tensor(weight) for name, weight in weights.items()}
    prefix = f"{_SERVED}."
    served = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return served or tensors


class _ExchangingEngine:
    """An engine whose ``network`` is all that is exchanged; everything else is the engine's own.

    ``MonaiAlgo`` reads and writes ``engine.network`` and asks for the engine's class.
    """

    def __init__(self, engine: Any, network: nn.Module) -> None:
        self._engine, self.network = engine, network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._engine)


class CESMAlgo(MonaiAlgo):
    """MONAI's federated client for this bundle, with what is exchanged as a choice.

    Networks that are not exchanged, both optimisers, learning-rate schedules, gradient scalers, image pools, the epoch,
    the order and augmentation of the cases, and the choice of the site's own best model go on from round to round in
    the memory of the client, and from ``checkpoint.pt`` of the run when a client is started anew with ``resume``. The
    schedules fall over the ``max_epochs`` of ``train_kwargs``, which is rounds times ``local_epochs``.

    In contrast to ``MonaiAlgo``, received weights must be all that is expected and nothing else, options that no entry
    of the config reads are refused, and the site's best model goes to its own run folder, never to ``models/model.pt``.

    Args:
        bundle_root: folder of the bundle. It must be on ``PYTHONPATH`` as well.
        exchange: ``generator`` (only ``network``) or ``all`` (both generators and both discriminators), see
            :func:`exchanged_networks`.
        local_epochs: epochs of a round.
        config_train_filename: ``train.json``, or a list that begins with it and goes on with overlays.
        train_kwargs: overrides of that config, such as ``dataset_dir`` and ``output_dir``.
        config_evaluate_filename: config of the evaluation; None is that of the training, whose ``validate`` section
            judges the received weights on the validation cases of the site. Test cases are not touched.
        eval_kwargs: overrides of that config; None are those of the training.
        kwargs: the other arguments of ``MonaiAlgo``.

    Raises:
        ValueError: if ``exchange`` is neither.
    """

    trainer: Any
    evaluator: Any
    train_workflow: Any

    def __init__(
        self,
        bundle_root: str,
        exchange: Exchange = "generator",
        local_epochs: int = 1,
        config_train_filename: str | list[str] = "configs/train.json",
        train_kwargs: Mapping[str, Any] | None = None,
        config_evaluate_filename: str | list[str] | None = None,
        eval_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if exchange not in get_args(Exchange):
            raise ValueError(f"exchange is {exchange!r}; expected one of {', '.join(get_args(Exchange))}")
        own = {"model_path": "$@output_dir + '/model.pt'"} | dict(train_kwargs or {})
        super().__init__(
            bundle_root=bundle_root,
            local_epochs=local_epochs,
            config_train_filename=config_train_filename,
            train_kwargs=own,
            config_evaluate_filename=config_evaluate_filename or config_train_filename,
            eval_kwargs=own | _RECEIVED if eval_kwargs is None else dict(eval_kwargs),
            final_model_filepath=None,
            **kwargs,
        )
        self.exchange = exchange

    def initialize(self, extra: dict[str, Any] | None = None) -> None:
        """Build the training and the evaluation of this site, and go on from its checkpoint where that is wanted.

        Args:
            extra: what the federation's system says, see ``MonaiAlgo``: ``ExtraItems.CLIENT_NAME`` and others.

        Raises:
            ValueError: if an override is unknown, or a checkpoint does not fit.
        """
        super().initialize(extra)  # type: ignore[no-untyped-call]  # as MONAI's
        parser = self.train_workflow.parser
        unknown = unknown_ids(parser.get(), known_ids(f"{self.bundle_root}/configs", parser.get()))
        if unknown:
            raise ValueError(
                f"nothing reads {', '.join(unknown)}; train_kwargs are ids of {self.config_train_filename}"
            )
        parser.get_parsed_content("checkpoint").restore(self.trainer)
        if self.exchange == "generator":
            self.model_filepaths = {ModelType.BEST_MODEL: f"{parser.get_parsed_content('output_dir')}/model.pt"}
            return
        self.model_filepaths = {}  # the best epoch's networks lie in best_networks.pt, not as one state dict
        self.trainer = _ExchangingEngine(self.trainer, exchanged_networks(self.trainer.networks, "all"))
        served = nn.ModuleDict({_SERVED: unwrap(self.evaluator.network)})
        self.evaluator = _ExchangingEngine(self.evaluator, served)

    def get_weights(self, extra: dict[str, Any] | None = None) -> ExchangeObject:
        """Return the weights (or their change) after the last round, as a copy that later rounds leave alone."""
        result = super().get_weights(extra)  # type: ignore[no-untyped-call]  # as MONAI's
        result.weights = {name: torch.as_tensor(weight).clone() for name, weight in result.weights.items()}
        return cast(ExchangeObject, result)

    def _check_converted(
        self, global_weights: Mapping[str, Any], local_var_dict: Mapping[str, Any], n_converted: int
    ) -> None:
        missing = [name for name in local_var_dict if name not in global_weights]
        # Of all networks an evaluation needs one.
        unknown = [name for name in global_weights if name not in local_var_dict] if self.phase == FlPhase.TRAIN else []
        if missing or unknown:
            raise ValueError(
                f"the weights of the server do not fit: {len(missing)} missing {missing[:3]}, {len(unknown)} unknown "
                f"{unknown[:3]}; exchange={self.exchange!r} and the network settings must be the same everywhere"
            )
