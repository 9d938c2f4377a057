"""How well the virtual DES tells the lesions of each kind that enhance from all that do not, as a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bundle.metrics import ENHANCING_CNR
from bundle.metrics.intervals import Resampling, figures
from scripts.evidence.markdown import interval_cell, markdown
from scripts.evidence.report_metrics import metric_of
from scripts.evidence.report_tables import name_of

__all__ = ["enhancement_table"]

_FIGURE = "enhancement_auc"
_COLUMNS = [
    *("arm", "patient_id", "source", "seed", "lesion_kind", "lesion_contrast_real", "lesion_contrast_virtual"),
    *("lesion_cnr_real", "lesion_cnr_virtual"),
]


def enhancement_table(cases: pd.DataFrame, names: Sequence[str], resampling: Resampling) -> str:
    """The enhancement AUC over all lesions, and over those of each kind that enhance against all that do not.

    Within one kind, such as malignant, there may be no lesion without enhancement to compare with.

    Args:
        cases: one row per predictor (``arm``), seed and case, as `scripts.evidence.report_load.Evidence.cases`.
        names: predictors, in their order.
        resampling: how intervals are made.

    Raises:
        LookupError: all lesions enhance, or none does.
    """
    rows = cases.reindex(columns=_COLUMNS)
    bright, still = rows["lesion_cnr_real"] > ENHANCING_CNR, rows["lesion_cnr_real"] <= ENHANCING_CNR
    if not (bright.any() and still.any()):
        raise LookupError(
            "an enhancement AUC needs lesions that enhance and lesions that do not; one of both is missing"
        )
    kinds = rows["lesion_kind"].astype(object).fillna("").astype(str)
    groups = {"all": bright} | {kind: bright & (kinds == kind) for kind in sorted(set(kinds[bright]) - {""})}
    cells = [["lesions that enhance", "number", "that do not", *map(name_of, names)]]
    for group, inside in groups.items():
        part = rows[inside | ~bright]  # with the cases that have no lesion, as in the study's own AUC
        found = [figures(part[part["arm"] == name], resampling).get(_FIGURE) for name in names]
        counts = [str(_number_of_cases(rows[of])) for of in (inside, still)]
        cells.append([group, *counts, *(interval_cell(one, metric_of(_FIGURE).digits) for one in found)])
    return markdown(cells)


def _number_of_cases(rows: pd.DataFrame) -> int:
    return len(rows[["patient_id", "source"]].drop_duplicates())
