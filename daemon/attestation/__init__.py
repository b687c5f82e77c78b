"""Signed verdicts: an in-toto statement about the weight files, in a DSSE envelope.

`build_statement` says what was judged, `dsse.sign` and `keyless.signer` sign it, `require_same_bytes` holds it against a model.
"""
