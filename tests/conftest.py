"""What holds for every test: generated examples are the same in every run and have no time limit of their own."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("layerwatch", derandomize=True, deadline=None)
settings.load_profile("layerwatch")
