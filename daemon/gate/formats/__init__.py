"""The formats of ``layerwatch gate`` and ``layerwatch convert``: a pure function from a report to text for each."""
