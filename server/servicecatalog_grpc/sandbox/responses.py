"""From AWS's JSON protocol to calls of the catalogue, the inventory and the provisioner, and back."""

import json
import logging
from typing import Any

from botocore.exceptions import ParamValidationError
from botocore.validate import validate_parameters
from moto.core.common_types import TYPE_RESPONSE
from moto.core.request import Request
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import camelcase_to_underscores, get_service_model
from moto.servicecatalog.models import ServiceCatalogBackend
from moto.servicecatalog.responses import ServiceCatalogResponse
from moto.utilities.aws_headers import gen_amzn_requestid_long

from servicecatalog_grpc.sandbox.catalog import Catalog
from servicecatalog_grpc.sandbox.errors import (
    InternalFailure,
    OperationNotSupportedException,
    SerializationException,
    ServiceError,
    UnknownOperationException,
    ValidationException,
)
from servicecatalog_grpc.sandbox.inventory import Inventory
from servicecatalog_grpc.sandbox.products import Products
from servicecatalog_grpc.sandbox.provisioning import Provisioner

_logger = logging.getLogger(__name__)
_CONTENT_TYPE = "application/x-amz-json-1.1"


class SandboxResponse(ServiceCatalogResponse):
    """moto's handler of one Service Catalog request, with the operations that moto lacks."""

    def __init__(self, catalog: Catalog, inventory: Inventory, provisioner: Provisioner) -> None:
        """Serve from the state of one sandbox."""
        super().__init__()
        self._catalog = catalog
        self._products = Products(catalog)
        self._inventory = inventory
        self._provisioner = provisioner
        self._request: dict[str, Any] = {}

    @property
    def servicecatalog_backend(self) -> ServiceCatalogBackend:
        """The one catalogue, whatever region or account a client is configured for."""
        return self._catalog.backend

    def handle(self, request: Request, full_url: str, headers: Any) -> TYPE_RESPONSE:
        """Answer a request; nothing that goes wrong escapes as an exception."""
        try:
            self.setup_class(request, full_url, headers)
            self.response_headers["Content-Type"] = _CONTENT_TYPE
            self._parse()
            return self.call_action()
        except ServiceError as error:
            return _failure(error)
        except UnicodeDecodeError:
            return _failure(SerializationException("The body is not UTF-8."))
        except Exception:
            _logger.exception("the sandbox failed to answer %s", request.headers.get("X-Amz-Target"))
            return _failure(InternalFailure("The sandbox failed; its log says why."))

    def _parse(self) -> None:
        """Check the operation and read the body; raises ServiceError if AWS would refuse either."""
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        model = get_service_model("servicecatalog")
        if operation not in model.operation_names:
            raise UnknownOperationException(f"Unknown operation: {operation or 'none'}")
        if not hasattr(self, camelcase_to_underscores(operation)):
            raise OperationNotSupportedException(f"The sandbox does not implement {operation}.")
        try:
            self._request = json.loads(self.body)
        except ValueError as error:
            raise SerializationException(f"The body is not JSON: {error}") from error
        try:
            validate_parameters(self._request, model.operation_model(operation).input_shape)
        except ParamValidationError as error:
            raise ValidationException(str(error)) from error

    # Operations of the catalogue.

    def create_product(self) -> ActionResult:
        """Follow API_CreateProduct: moto's product, and its first artifact if it comes with one."""
        properties = self._request.get("ProvisioningArtifactParameters")
        artifact = self._catalog.load_artifact(properties) if properties else None
        result: Any = super().create_product().result
        product_id = result["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
        known = self._catalog.artifacts(product_id)
        if known:  # moto recognised the token: this is the product of an earlier request
            artifact = known[0]
        elif artifact:
            self._catalog.publish(product_id, artifact)
        result["ProvisioningArtifactDetail"] = artifact.detail() if artifact else {}
        return ActionResult(result)

    def search_products(self) -> ActionResult:
        """Follow API_SearchProducts."""
        return ActionResult(self._products.search_products(self._request))

    def describe_product(self) -> ActionResult:
        """Follow API_DescribeProduct."""
        return ActionResult(self._products.describe_product(self._request))

    def list_launch_paths(self) -> ActionResult:
        """Follow API_ListLaunchPaths."""
        return ActionResult(self._products.list_launch_paths(self._request))

    def describe_provisioning_parameters(self) -> ActionResult:
        """Follow API_DescribeProvisioningParameters."""
        return ActionResult(self._products.describe_provisioning_parameters(self._request))

    def create_provisioning_artifact(self) -> ActionResult:
        """Follow API_CreateProvisioningArtifact."""
        product = self._catalog.product(self._request["ProductId"])
        artifact = self._catalog.load_artifact(self._request["Parameters"])
        self._catalog.publish(product.id, artifact)
        return ActionResult(
            {
                "ProvisioningArtifactDetail": artifact.detail(),
                "Info": {"TemplateUrl": artifact.template_url},
                "Status": "AVAILABLE",
            }
        )

    def associate_product_with_portfolio(self) -> ActionResult:
        """Follow API_AssociateProductWithPortfolio."""
        self._catalog.associate(self._request["ProductId"], self._request["PortfolioId"])
        return EmptyResult()

    # Operations of provisioned products.

    def provision_product(self) -> ActionResult:
        """Follow API_ProvisionProduct."""
        return ActionResult(self._provisioner.provision_product(self._request))

    def update_provisioned_product(self) -> ActionResult:
        """Follow API_UpdateProvisionedProduct."""
        return ActionResult(self._provisioner.update_provisioned_product(self._request))

    def update_provisioned_product_properties(self) -> ActionResult:
        """Follow API_UpdateProvisionedProductProperties."""
        return ActionResult(self._provisioner.update_provisioned_product_properties(self._request))

    def terminate_provisioned_product(self) -> ActionResult:
        """Follow API_TerminateProvisionedProduct."""
        return ActionResult(self._provisioner.terminate_provisioned_product(self._request))

    def describe_record(self) -> ActionResult:
        """Follow API_DescribeRecord."""
        return ActionResult(self._inventory.describe_record(self._request))

    def list_record_history(self) -> ActionResult:
        """Follow API_ListRecordHistory."""
        return ActionResult(self._inventory.list_record_history(self._request))

    def describe_provisioned_product(self) -> ActionResult:
        """Follow API_DescribeProvisionedProduct."""
        return ActionResult(self._inventory.describe_provisioned_product(self._request))

    def search_provisioned_products(self) -> ActionResult:
        """Follow API_SearchProvisionedProducts."""
        return ActionResult(self._inventory.search_provisioned_products(self._request))

    def get_provisioned_product_outputs(self) -> ActionResult:
        """Follow API_GetProvisionedProductOutputs."""
        return ActionResult(self._inventory.get_provisioned_product_outputs(self._request))


def _failure(error: ServiceError) -> TYPE_RESPONSE:
    headers = {"Content-Type": _CONTENT_TYPE, "X-Amzn-ErrorType": error.code}
    gen_amzn_requestid_long(headers)
    return error.status, headers, json.dumps({"__type": error.code, "message": error.message})
