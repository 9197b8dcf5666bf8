"""The HTTP messages of one operation of AWS: requests as botocore would send them, answers as botocore reads them."""

import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from botocore.awsrequest import AWSPreparedRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, UnsupportedSignatureVersionError
from botocore.model import OperationModel
from botocore.parsers import ResponseParser, ResponseParserError
from botocore.serialize import create_serializer

from servicecatalog_grpc.aws.connection import Response
from servicecatalog_grpc.aws.route import Route, header_lines
from servicecatalog_grpc.aws.signing import ALGORITHM, Signer

# What each request has of its own. The rest stays as botocore prepared it.
_OWN = frozenset({"authorization", "x-amz-date", "amz-sdk-invocation-id", "content-length"})

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, SignedHeaders=(?P<names>[^,]+), .*"
)

_FIRST_ERROR_STATUS = 300


class Messages:
    """Writes the requests of one operation and reads their answers."""

    def __init__(
        self,
        model: OperationModel,
        prepared: AWSPreparedRequest,
        route: Route,
        parser: ResponseParser,
    ) -> None:
        """Take a request of the operation as botocore has signed it, and what parses the answers of its protocol.

        Raises UnsupportedSignatureVersionError or ValueError for one that is unlike AWS Service Catalog's and STS's.
        """
        headers = {name.lower(): _text(value) for name, value in prepared.headers.items()}
        signed = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if signed is None or prepared.method != "POST":
            raise UnsupportedSignatureVersionError(
                signature_version=headers.get("authorization", "none").partition(" ")[0]
            )
        headers["host"] = route.authority
        names = set(signed["names"].split(";")) - _OWN
        self._signer = Signer(
            prepared.url, {name: headers[name] for name in names}, signed["region"], signed["service"]
        )
        self._head = route.head(prepared.url) + header_lines(
            {name: value for name, value in headers.items() if name not in {*_OWN, "host"}}
        )
        self._model = model
        self._serializer: Any = create_serializer(model.service_model.resolved_protocol, include_validation=False)
        self._parser: Any = parser

    def request(self, members: Mapping[str, Any], keys: ReadOnlyCredentials) -> bytes:
        """Return a whole request, signed with the keys. Raises ValueError for keys that no header can have."""
        content = self._serializer.serialize_to_request(members, self._model)["body"]
        body: bytes = content if isinstance(content, bytes) else urlencode(content, doseq=True).encode()
        own = self._signer.sign(body, keys)
        own["amz-sdk-invocation-id"] = _random_uuid()
        own["content-length"] = str(len(body))
        return f"{self._head}{header_lines(own)}\r\n".encode() + body

    def reply(self, response: Response) -> Mapping[str, Any]:
        """Return what boto3 would. Raises ClientError if AWS answers with an error, and whatever botocore's parser raises."""
        answer = {
            "headers": response.headers,
            "status_code": response.status,
            "body": response.body,
            "context": {"operation_name": self._model.name},
        }
        reply = self._parser.parse(answer, self._model.output_shape)
        if response.status >= _FIRST_ERROR_STATUS:
            raise ClientError(reply, self._model.name)
        if not isinstance(reply, dict):
            # JSON's null, with which botocore's client fails too.
            raise ResponseParserError
        return reply


def _random_uuid() -> str:
    """Return what `str(uuid.uuid4())` does, in a third of its time (https://www.rfc-editor.org/rfc/rfc9562#section-5.4)."""
    digits = secrets.token_hex(16)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
