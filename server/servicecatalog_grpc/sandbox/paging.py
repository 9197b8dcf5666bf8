"""Splits answers into pages, as AWS does."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from servicecatalog_grpc.sandbox.errors import InvalidParametersException

_TOKEN = re.compile(r"from-(\d{1,9})")


def page(member: str, items: Sequence[Any], request: Mapping[str, Any], size: int = 20) -> dict[str, Any]:
    """Return the `member` of an answer with the page of its items that a request asks for, and NextPageToken if any.

    `size` is for requests that set none. Raises InvalidParametersException for a token that no answer had.
    """
    token = _TOKEN.fullmatch(request.get("PageToken") or "from-0")
    if not token:
        raise InvalidParametersException("PageToken is not one that an answer had.")
    start = int(token[1])
    end = start + (request.get("PageSize") or size)
    following = {"NextPageToken": f"from-{end}"} if end < len(items) else {}
    return {member: list(items[start:end]), **following}
