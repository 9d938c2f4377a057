"""Which licences of dependencies are free of conditions on our code, and why the others are no trouble.

Licences are SPDX expressions (https://spdx.org/licenses). What a package's metadata say in other words is translated
here; where they say too little ("BSD"), the licence file of the package was read.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from license_expression import get_spdx_licensing
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

__all__ = ["ALLOWED", "DECLARED", "REASONS", "is_allowed", "spdx_of"]

#: Ask for no more than that their text and notices are kept.
ALLOWED = frozenset({
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "MIT", "MIT-0", "MIT-CMU", "OLDAP-2.8",
    "PSF-2.0", "ZPL-2.1", "Zlib",
})  # fmt: skip
_EXCEPTIONS = frozenset({"Apache-2.0 WITH LLVM-exception"})

_MPL = "MPL 2.0 binds changed files of the package itself; it is used as its makers publish it"
_LGPL = "LGPL: a library that MONAI Label loads and anyone can exchange; in its own environment, not shipped by us"
_NVIDIA = "NVIDIA's own terms; optional, installed by who has an NVIDIA GPU and accepts them, not shipped by us"

#: Why a package with any other licence is used all the same.
REASONS: dict[str, str] = {
    "certifi": _MPL,
    "hypothesis": f"{_MPL}, and in tests alone",
    "pathspec": f"{_MPL}, and in checks alone",
    "tqdm": _MPL,
    "openslide-bin": _LGPL,
    "openslide-python": _LGPL,
    "tensorrt-cu13": _NVIDIA,
    "tensorrt-cu13-bindings": _NVIDIA,
    "tensorrt-cu13-libs": _NVIDIA,
}

#: Packages that cannot be installed without a GPU: licence and needs as their metadata on the package index say.
DECLARED: dict[str, tuple[str, tuple[str, ...]]] = {
    "polygraphy": ("Apache-2.0", ()),
    "tensorrt-cu13": ("LicenseRef-NVIDIA", ("tensorrt_cu13_bindings", "tensorrt_cu13_libs")),
    "tensorrt-cu13-bindings": ("LicenseRef-NVIDIA", ()),
    "tensorrt-cu13-libs": ("LicenseRef-NVIDIA", ()),
}

_WORDS = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd-3-clause license": "BSD-3-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
"""What metadata say, in lower case."""

_BSD_3_CLAUSE = (
    "antlr4-python3-runtime", "colorama", "cycler", "flask-sqlalchemy", "gitdb", "itsdangerous", "jinja2", "kiwisolver",
    "mpmath", "nodeenv", "numpy", "omegaconf", "passlib", "perf-analyzer", "pyradiomics", "pysocks", "scikit-image",
    "scipy", "sqlparse", "sympy", "torchvision", "tritonclient",
)  # fmt: skip
_READ = {
    **dict.fromkeys(_BSD_3_CLAUSE, "BSD-3-Clause"),
    **dict.fromkeys(("dicomweb-client", "huey", "iopath", "pynrrd", "skops"), "MIT"),
    **dict.fromkeys(("mlflow", "mlflow-skinny", "mlflow-tracing"), "Apache-2.0"),
    "matplotlib": "PSF-2.0",
    "pyasn1-modules": "BSD-2-Clause",
}
"""Packages whose metadata do not say which licence it is, by the licence file that they bring."""


def spdx_of(name: str, metadata: Mapping[str, Any], classifiers: list[str]) -> str:
    """The licence of a package as an SPDX expression.

    Args:
        name: canonical name of the package.
        metadata: its ``License-Expression`` and ``License``, where it has them.
        classifiers: its trove classifiers.

    Raises:
        ValueError: nobody has said yet which licence it is.
    """
    stated = metadata.get("License-Expression")
    if not stated and name in _READ:
        return _READ[name]
    words = [stated or "", *(metadata.get("License") or "").strip().splitlines()[:1]]
    words += [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License :: ")]
    for word in words:
        known = _WORDS.get(word.lower(), word)
        try:
            return str(canonicalize_license_expression(known))
        except InvalidLicenseExpression:
            continue
    raise ValueError(
        f"{name}: its metadata say {' / '.join(filter(None, words))[:80] or 'nothing'!r} of its licence; read its "
        "licence file and add it to scripts/supply/policy.py"
    )


def is_allowed(licence: str) -> bool:
    """Whether an SPDX expression can be met with licences of ``ALLOWED`` alone."""
    return _allowed(_grammar().parse(licence, validate=False))


@functools.cache
def _grammar() -> Any:
    return get_spdx_licensing()  # reads all licences there are, which takes a while


def _allowed(node: Any) -> bool:
    operator = getattr(node, "operator", "").strip()
    if operator == "OR":
        return any(map(_allowed, node.args))
    if operator == "AND":
        return all(map(_allowed, node.args))
    return str(node) in ALLOWED | _EXCEPTIONS
