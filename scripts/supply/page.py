"""docs/licences.md: the licences of all packages as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from packaging.utils import canonicalize_name

from scripts.supply.environments import ENVIRONMENTS
from scripts.supply.inventory import Package
from scripts.supply.policy import REASONS, is_allowed

__all__ = ["page", "refused"]

_HEAD = """\
# Licences of all dependencies

Written by `make licences`; do not edit. Versions are the pinned ones ([supply-chain.md](supply-chain.md)), licences
SPDX expressions from the metadata of the packages; where these say too little, the licence file inside was read.

**No package that we name has the GPL.** This repository and its zip hold none of these packages: pip installs them.
Wheels also carry compiled libraries of others that their metadata do not name. Those to know of:

- GCC's runtime (libgomp, libgfortran: GPL 3 with the exception that frees programs linked to it; libquadmath: LGPL 2.1)
  in numpy, scipy, scikit-learn and torch.
- FFmpeg (LGPL 2.1) in opencv-contrib-python-headless, which the radiomics distance alone needs.

pylibjpeg-libjpeg, which is GPL 3, is not used. A CUDA build of torch brings NVIDIA's libraries, under NVIDIA's terms,
in the versions that it names itself.

## Packages with conditions

"""

_ENVIRONMENTS = """
## Environments

| name | for | pins |
|---|---|---|
"""


def refused(packages: Iterable[Package]) -> list[Package]:
    """Packages whose licence asks for more than a notice, without a reason in the policy."""
    return [one for one in packages if not is_allowed(one.licence) and canonicalize_name(one.name) not in REASONS]


def page(packages: Sequence[Package]) -> str:
    """The whole page in Markdown."""
    noted = [one for one in packages if not is_allowed(one.licence)]
    reasons = [f"| {one.name} | {one.licence} | {REASONS[canonicalize_name(one.name)]} |" for one in noted]
    kinds = [f"| {one.name} | {one.purpose} | {', '.join(one.pins)} |" for one in ENVIRONMENTS]
    core = [one for one in packages if "core" in one.environments]
    others = [one for one in packages if "core" not in one.environments]
    return (
        _HEAD
        + "| package | licence | why it is used all the same |\n|---|---|---|\n"
        + "\n".join(dict.fromkeys(reasons))
        + "\n"
        + _ENVIRONMENTS
        + "\n".join(kinds)
        + "\n\n## Needed to train and to apply\n\n"
        + _table(core)
        + "\n## Needed by the other environments alone\n\n"
        + _table(others)
    )


def _table(packages: Sequence[Package]) -> str:
    rows = [f"| {one.name} | {one.version} | {one.licence} | {', '.join(one.environments)} |" for one in packages]
    return "| package | version | licence | environments |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
