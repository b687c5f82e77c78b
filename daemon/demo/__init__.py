"""The demonstration: real networks, trained on real data, published version by version, one of them broken.

``story`` says what happens, ``preparing`` makes the versions, ``publishing`` puts them into a registry and
``narration`` words the outcome. Only ``preparing`` and what it builds on need torch and scikit-learn.
"""
