"""``python -m layerwatch.daemon`` is the same as ``layerwatch``."""

from layerwatch.daemon.cli import main

main()
