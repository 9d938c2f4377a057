"""Physics-based contrast-enhanced mammography phantom: the embedded, synthetic default dataset."""

from __future__ import annotations

from bundle.phantom.beams import SITES
from bundle.phantom.dataset import make_phantom
from bundle.phantom.render import PhantomView, render_view

__all__ = ["SITES", "PhantomView", "make_phantom", "render_view"]
