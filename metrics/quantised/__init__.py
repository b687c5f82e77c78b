"""Quantised storage undone: which tensors make up one layer, and that layer's values as float32.

Start at :mod:`layerwatch.metrics.quantised.schemes`.
"""
