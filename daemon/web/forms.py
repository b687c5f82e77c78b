"""What browsers post."""

from __future__ import annotations

from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

_MOST_FIELDS = 20


async def posted(request: Request) -> dict[str, str]:
    """The fields of a form; raises HTTPException 415 and 400 for what is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "a form is posted as application/x-www-form-urlencoded")
    body = await request.body()
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise HTTPException(400, "this is no form of this page") from None
