"""The idempotency token of a write, chosen once for each call of the application, before the first attempt."""

import uuid
from collections.abc import Iterable
from typing import Any

from servicecatalog.v1.provisioned_product_service_pb2 import TerminateProvisionedProductRequest
from servicecatalog.v1.provisioning_service_pb2 import (
    ProvisionProductRequest,
    UpdateProvisionedProductPropertiesRequest,
    UpdateProvisionedProductRequest,
)

_FIELDS: dict[type, str] = {
    ProvisionProductRequest: "provision_token",
    UpdateProvisionedProductRequest: "update_token",
    UpdateProvisionedProductPropertiesRequest: "idempotency_token",
    TerminateProvisionedProductRequest: "terminate_token",
}

# The façade makes the token from these, and one in the request would outrank them.
_KEYS = {"idempotency-key", "x-request-id"}


def with_token(request: Any, metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[Any, str | None]:
    """Return the request as it is to be sent, and the token in it.

    A write without any token gets a random one, in a copy: the caller's request may serve for the next intent too.
    """
    field = _FIELDS.get(type(request))
    if field is None:
        return request, None
    token = getattr(request, field)
    if not token and not any(key in _KEYS for key, _ in metadata or ()):
        token = str(uuid.uuid4())
        copy = type(request)()
        copy.CopyFrom(request)
        setattr(copy, field, token)
        request = copy
    return request, token or None
