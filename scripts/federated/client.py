"""What a site runs in a federation; NVIDIA FLARE starts it, with federation.json of the job beside it.

The site's own folders come from its environment and never from the job: CESM_DATASET_DIR (datalist.json lies there) and
CESM_OUTPUT_DIR (default: runs/federated/{job}/{site} of the bundle). ``{site}`` and ``{job}`` in them are replaced. The
bundle must be on PYTHONPATH.

To the server go weights, the number of optimisation steps, and four means over the validation cases. An error's text
may name files, so it is written to error.txt of the site's output folder and the server learns only that one occurred.
"""

from __future__ import annotations

import json
import logging
import math
import os
import traceback
from pathlib import Path
from typing import Any

import nvflare.client as flare  # type: ignore[import-not-found]  # has an environment of its own
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject
from nvflare.apis.fl_constant import FLMetaKey  # type: ignore[import-not-found]

import bundle.federated
from bundle.federated import CESMAlgo
from bundle.files import write_text

BUNDLE_ROOT = Path(bundle.federated.__file__).resolve().parents[1]
SENT = ("mae", "psnr", "ssim", "breast_mae")
"""All of a site's figures that leave it. Those of lesions stay: where a site validates on one, they describe it."""
logger = logging.getLogger("cesm.federated")


def folder(variable: str, default: str | None = None) -> Path:
    """The folder that an environment variable names, with the site's and the job's name put in.

    Raises:
        ValueError: the variable is not set and there is no default.
    """
    text = os.environ.get(variable, default)
    if not text:
        raise ValueError(f"{variable} is not set at this site; set it to the folder with its datalist.json")
    named = text.replace("{site}", flare.get_site_name()).replace("{job}", flare.get_job_id())
    return Path(named).expanduser().resolve()


def make_client(job: dict[str, Any], output_dir: Path) -> CESMAlgo:
    """The MONAI client of this site, on its own data, for the settings that all sites share."""
    own = {"dataset_dir": str(folder("CESM_DATASET_DIR")), "output_dir": str(output_dir), "resume": True}
    algo = CESMAlgo(
        str(BUNDLE_ROOT),
        exchange=job["exchange"],
        local_epochs=job["local_epochs"],
        send_weight_diff=False,
        config_train_filename=job["configs"],
        train_kwargs=job["overrides"] | own,
    )
    algo.initialize({ExtraItems.CLIENT_NAME: flare.get_site_name()})
    return algo


def judge(algo: CESMAlgo, received: ExchangeObject) -> dict[str, float]:
    """The means that are sent, of the received weights over the site's validation cases, where there are any."""
    metrics = algo.evaluate(received).metrics
    numbers = {name: float(metrics[name]) for name in SENT if name in metrics}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def answer(algo: CESMAlgo, model: Any) -> Any:
    """Judge the received weights and, unless that is all that is asked for, train on from them for a round."""
    received = ExchangeObject(weights=model.params)
    metrics = judge(algo, received)
    if flare.is_evaluate():
        return flare.FLModel(metrics=metrics)
    algo.train(received)
    result = algo.get_weights()
    steps = result.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]
    logger.info(f"round {model.current_round} of {model.total_rounds}: {steps} steps, received {metrics}")
    return flare.FLModel(params=result.weights, metrics=metrics, meta={FLMetaKey.NUM_STEPS_CURRENT_ROUND: steps})


def main() -> None:
    """Take part until the federation ends.

    Raises:
        RuntimeError: something failed; what, says error.txt at the site.
    """
    flare.init()
    output_dir = folder("CESM_OUTPUT_DIR", f"{BUNDLE_ROOT}/runs/federated/{{job}}/{{site}}")
    try:
        algo = make_client(json.loads(Path(__file__).with_name("federation.json").read_text()), output_dir)
        while flare.is_running():
            model = flare.receive()
            if model is not None:
                flare.send(answer(algo, model))
        algo.finalize()
    except Exception:
        write_text(output_dir / "error.txt", traceback.format_exc())
        raise RuntimeError("the site failed; its error.txt, in its own output folder, says why") from None


if __name__ == "__main__":
    main()
