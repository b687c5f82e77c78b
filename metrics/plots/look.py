"""Colours and sizes of every plot: one thing has one colour throughout.

Colours: Okabe & Ito, "Color Universal Design", 2008: told apart with any kind of colour vision.
"""

from __future__ import annotations

from typing import Any

LAYER = "#0072B2"
LAYER_FILL = "#A9CFE5"
FIT = "#D55E00"
BULK = "#009E73"
SHUFFLED = "#CC79A7"
BASELINE = "#8A8A8A"
PROBLEM = "#D55E00"
BAND = "#F0E442"
TEXT = "#222222"
FAINT_TEXT = "#666666"

DOTS_PER_INCH = 120

SETTINGS: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.labelcolor": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": TEXT,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "white",
    "svg.hashsalt": "layerwatch",
    "text.color": TEXT,
    "xtick.color": "#666666",
    "xtick.labelcolor": TEXT,
    "ytick.color": "#666666",
    "ytick.labelcolor": TEXT,
}
