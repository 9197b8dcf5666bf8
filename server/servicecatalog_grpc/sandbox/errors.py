"""The errors of Service Catalog that the sandbox answers with."""
# ruff: noqa: N818 -- these are AWS's own names, which become the error codes


class ServiceError(Exception):
    """A refusal in AWS's terms: an error code, a message for the caller and an HTTP status."""

    status = 400

    def __init__(self, message: str) -> None:
        """Keep `message`, which goes to the caller as it is."""
        super().__init__(message)
        self.message = message

    @property
    def code(self) -> str:
        """AWS's name of the error."""
        return type(self).__name__


class DuplicateResourceException(ServiceError):
    """The name is taken."""


class InvalidParametersException(ServiceError):
    """The request contradicts itself, the catalogue or the state of the provisioned product."""


class InvalidStateException(ServiceError):
    """The provisioned product is not in a state that allows the operation."""


class OperationNotSupportedException(ServiceError):
    """An operation of AWS that neither moto nor the sandbox has."""


class ResourceNotFoundException(ServiceError):
    """Something that the request names does not exist."""


class SerializationException(ServiceError):
    """The body is not JSON."""


class UnknownOperationException(ServiceError):
    """The target header names no operation of Service Catalog."""


class ValidationException(ServiceError):
    """The request does not have the shape of AWS's model."""


class InternalFailure(ServiceError):
    """A fault of the sandbox itself."""

    status = 500
