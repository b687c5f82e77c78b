"""Signed verdicts: an in-toto statement about the weight files, in a DSSE envelope.

`build_statement` says what was judged, `attest` signs it with a local key, `verify` holds an envelope against a model.
"""
