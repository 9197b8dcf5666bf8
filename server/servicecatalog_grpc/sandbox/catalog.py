"""What can be provisioned: artifacts and launch paths of the products that moto keeps."""

import secrets
import string
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from moto.servicecatalog.models import (
    Portfolio,
    Product,
    ServiceCatalogBackend,
    servicecatalog_backends,
)

from servicecatalog_grpc.sandbox.aws import ACCOUNT, REGION
from servicecatalog_grpc.sandbox.errors import (
    InvalidParametersException,
    ResourceNotFoundException,
)

Request = Mapping[str, Any]
"""The members of a request, by AWS's names, already of the shape of AWS's model."""

_ID_ALPHABET = string.ascii_lowercase + string.digits


def new_id(prefix: str) -> str:
    """Return an identifier that looks like one of AWS's, e.g. `rec-4ugtd6jo37rjs`."""
    return f"{prefix}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(13))}"


def one_of(request: Request, first: str, second: str, *, required: bool) -> str | None:
    """Return the name of the member that is present, of an id-or-name pair.

    Raises InvalidParametersException if both are present, or if neither is and one is required.
    """
    present = [name for name in (first, second) if request.get(name)]
    if len(present) > 1 or (required and not present):
        wrong = "both" if present else "neither"
        message = f"Specify either {first} or {second}; {wrong} was given."
        raise InvalidParametersException(message)
    return present[0] if present else None


@dataclass(frozen=True)
class Artifact:
    """A provisioning artifact: one version of a product, with its template as it was when added."""

    id: str
    name: str
    description: str
    type: str
    template: str
    template_url: str
    declared: Mapping[str, str | None]
    """The template's parameters, each with its default."""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def detail(self) -> dict[str, Any]:
        """Return AWS's `ProvisioningArtifactDetail`."""
        return {
            "Id": self.id,
            "Name": self.name,
            "Description": self.description,
            "Type": self.type,
            "CreatedTime": self.created,
            "Active": True,
            "Guidance": "DEFAULT",
        }


class Catalog:
    """Artifacts and launch paths by product. Every method may be called from any thread."""

    def __init__(self, s3: Any, cloudformation: Any) -> None:
        """Read templates from `s3` and have them parsed by `cloudformation`."""
        self._s3 = s3
        self._cloudformation = cloudformation
        self._lock = threading.Lock()
        self._artifacts: dict[str, list[Artifact]] = {}
        self._paths: dict[str, dict[str, str]] = {}

    @property
    def backend(self) -> ServiceCatalogBackend:
        """The products and portfolios, which are moto's own."""
        return servicecatalog_backends[ACCOUNT][REGION]

    def products(self) -> list[Product]:
        """Return all products; a copy, because another request may add one meanwhile."""
        return list(self.backend.products.values())

    def product(self, product_id: str | None, name: str | None = None) -> Product:
        """Return a product by id or name; raises ResourceNotFoundException."""
        for product in self.products():
            if product.id == product_id or (name and product.name == name):
                return product
        raise ResourceNotFoundException(f"Product {product_id or name} not found.")

    def load_artifact(self, properties: Request) -> Artifact:
        """Make an artifact of AWS's `ProvisioningArtifactProperties`, without publishing it.

        Raises InvalidParametersException if the template cannot be read or is no template.
        """
        url = properties.get("Info", {}).get("LoadTemplateFromURL")
        if not url:
            message = "Info needs LoadTemplateFromURL, the only template source of the sandbox."
            raise InvalidParametersException(message)
        bucket, key = _bucket_and_key(url)
        try:
            stored = self._s3.get_object(Bucket=bucket, Key=key)
            template = stored["Body"].read().decode()
            summary = self._cloudformation.get_template_summary(TemplateBody=template)
        except (BotoCoreError, ClientError, UnicodeDecodeError) as error:
            message = f"Invalid template {url}: {error}"
            raise InvalidParametersException(message) from error
        return Artifact(
            id=new_id("pa"),
            name=properties.get("Name", ""),
            description=properties.get("Description", ""),
            type=properties.get("Type", "CLOUD_FORMATION_TEMPLATE"),
            template=template,
            template_url=url,
            declared={parameter["ParameterKey"]: parameter.get("DefaultValue") for parameter in summary["Parameters"]},
        )

    def publish(self, product_id: str, artifact: Artifact) -> None:
        """Add an artifact to a product."""
        with self._lock:
            self._artifacts.setdefault(product_id, []).append(artifact)

    def artifacts(self, product_id: str) -> list[Artifact]:
        """Return the artifacts of a product, oldest first."""
        with self._lock:
            return list(self._artifacts.get(product_id, ()))

    def artifact(self, product: Product, request: Request) -> Artifact:
        """Return the artifact that a request names by id or name.

        Raises InvalidParametersException and ResourceNotFoundException.
        """
        member = one_of(request, "ProvisioningArtifactId", "ProvisioningArtifactName", required=True)
        wanted = request[member or ""]
        for artifact in self.artifacts(product.id):
            if wanted == (artifact.id if member == "ProvisioningArtifactId" else artifact.name):
                return artifact
        message = f"Provisioning artifact {wanted} of product {product.id} not found."
        raise ResourceNotFoundException(message)

    def associate(self, product_id: str, portfolio_id: str) -> None:
        """Give a product a launch path through a portfolio; a second time changes nothing.

        Raises ResourceNotFoundException.
        """
        self.product(product_id)
        if portfolio_id not in self.backend.portfolios:
            raise ResourceNotFoundException(f"Portfolio {portfolio_id} not found.")
        with self._lock:
            self._paths.setdefault(product_id, {}).setdefault(portfolio_id, new_id("lpv2"))

    def paths(self, product_id: str) -> dict[str, Portfolio]:
        """Return the launch paths of a product: id → the portfolio, which the path is named after."""
        with self._lock:
            by_portfolio = dict(self._paths.get(product_id, {}))
        portfolios = self.backend.portfolios
        return {
            path_id: portfolios[portfolio_id]
            for portfolio_id, path_id in by_portfolio.items()
            if portfolio_id in portfolios
        }

    def usable_paths(self, product: Product) -> dict[str, Portfolio]:
        """Return the launch paths of a product as `paths` does; raises ResourceNotFoundException if there are none."""
        paths = self.paths(product.id)
        if not paths:
            message = f"No launch paths found for resource: {product.id}"
            raise ResourceNotFoundException(message)
        return paths

    def path(self, product: Product, request: Request) -> str:
        """Return the id of the launch path that a request names, or of the single one.

        Raises InvalidParametersException and ResourceNotFoundException.
        """
        member = one_of(request, "PathId", "PathName", required=False)
        paths = self.usable_paths(product)
        if member:
            wanted = request[member]
            paths = {
                path_id: portfolio
                for path_id, portfolio in paths.items()
                if wanted == (path_id if member == "PathId" else portfolio.display_name)
            }
            if not paths:
                message = f"Launch path {wanted} of product {product.id} not found."
                raise ResourceNotFoundException(message)
        if len(paths) > 1:
            message = f"Product {product.id} has more than one launch path; specify PathId."
            raise InvalidParametersException(message)
        return next(iter(paths))


def _bucket_and_key(url: str) -> tuple[str, str]:
    """Split the URL of a template, in either of S3's styles, into bucket and key.

    Only the sandbox's own S3 is ever read, so any other host counts as an address of it.
    """
    parts = urlsplit(url)
    host, path = parts.hostname or "", unquote(parts.path.lstrip("/"))
    bucket, found, _ = host.partition(".s3")
    if host.endswith("amazonaws.com") and found:
        return bucket, path
    bucket, _, key = path.partition("/")
    return bucket, key
