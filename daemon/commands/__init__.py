"""One file per command of ``layerwatch``."""
