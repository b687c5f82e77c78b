"""``layerwatch scan --watch``: what a running daemon does, as its HTTP API tells it."""
