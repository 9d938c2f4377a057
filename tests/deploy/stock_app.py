"""The application with the SDK's own inference operator, which casts predictions to 8 bits, in the place of ours."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from monai.deploy.operators import MonaiBundleInferenceOperator  # type: ignore[import-not-found]

from scripts.deploy_app.app import VirtualContrastApp, main

VirtualContrastApp.inference_type = MonaiBundleInferenceOperator
sys.exit(main())
