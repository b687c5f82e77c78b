"""Names and help texts of the gauges about models, in one place."""

from __future__ import annotations

LAYER_LABELS = ("registry", "model", "ref", "layer")
REF_LABELS = ("registry", "model", "ref")

LAYER_ALPHA = ("layerwatch_layer_alpha", "Power-law exponent of the layer's eigenvalue tail.")
LAYER_ALPHA_SIGMA = ("layerwatch_layer_alpha_sigma", "Standard error of layerwatch_layer_alpha.")
LAYER_ALPHA_BASELINE = ("layerwatch_layer_alpha_baseline", "Alpha of the same layer in the baseline.")
LAYER_LOG_NORM = ("layerwatch_layer_log_norm", "log10 of the squared Frobenius norm.")
LAYER_LOG_SPECTRAL_NORM = ("layerwatch_layer_log_spectral_norm", "log10 of the largest eigenvalue.")
LAYER_STABLE_RANK = ("layerwatch_layer_stable_rank", "Sum of eigenvalues over the largest.")
LAYER_STATUS = (
    "layerwatch_layer_status",
    "Status of the layer: 0 ok, 1 info, 2 suspect, 3 broken, 4 undecided.",
)
MODEL_LAYERS = ("layerwatch_model_layers", "Layers of the model by status.")
MODEL_ALPHA = ("layerwatch_model_alpha", "Quantiles of alpha over the model's layers.")
MODEL_VERDICT = (
    "layerwatch_model_verdict",
    "Verdict of the version that the ref points at: 0 pass, 1 warn, 2 fail, 3 undecided.",
)
MODEL_ACCEPTED = (
    "layerwatch_model_accepted",
    "1 when a person called normal what keeps the version that the ref points at from passing, else 0.",
)
MODEL_JUDGED = (
    "layerwatch_model_judged_timestamp_seconds",
    "When the version that the ref points at was judged.",
)
MODEL_REPORT = ("layerwatch_model_report_info", "Where the report of what the ref points at is, always 1.")
EXPERTS_ALPHA = (
    "layerwatch_experts_alpha",
    "Quantiles of alpha over the experts of one layer, whose number is a * in its name.",
)
EXPERTS = ("layerwatch_experts", "Experts of the layer by status.")
MODEL_INFO = ("layerwatch_model_info", "What the ref points at, always 1.")
SERIES_DROPPED = (
    "layerwatch_series_dropped",
    "Layer series of the model that are not exported because of the cap per model.",
)
