"""Provisioning, updating and terminating: idempotency, rules and the lifecycle of records."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from servicecatalog_grpc.sandbox.catalog import Artifact, Catalog, Request, one_of
from servicecatalog_grpc.sandbox.errors import (
    DuplicateResourceException,
    InvalidParametersException,
    InvalidStateException,
)
from servicecatalog_grpc.sandbox.inventory import Inventory
from servicecatalog_grpc.sandbox.records import (
    PROVISION,
    TERMINATE,
    UPDATE,
    ProvisionedProduct,
    Record,
)
from servicecatalog_grpc.sandbox.stacks import Configuration, StackError, Stacks, Tags
from servicecatalog_grpc.sandbox.timeline import Timeline

Work = Callable[[], list[dict[str, str]]]
"""What a record does to its stack; returns the record's outputs or raises StackError."""

_ACCOUNT = r"(\d{12})"
_ROLE = rf"arn:[\w-]+:iam::{_ACCOUNT}:role/.+"
_PROPERTIES = {
    "OWNER": re.compile(rf"{_ROLE}|arn:[\w-]+:iam::{_ACCOUNT}:user/.+|arn:[\w-]+:sts::{_ACCOUNT}:assumed-role/.+/.+"),
    "LAUNCH_ROLE": re.compile(_ROLE),
}


class Provisioner:
    """Changes what is in the inventory. Every method may be called from any thread.

    Requests have the shape of AWS's model. The inventory's lock is never held over a call to
    CloudFormation, which only the timeline makes.
    """

    def __init__(self, catalog: Catalog, inventory: Inventory, stacks: Stacks, timeline: Timeline) -> None:
        """Provision from `catalog` into `stacks`, each record taking two steps of `timeline`."""
        self._catalog = catalog
        self._inventory = inventory
        self._stacks = stacks
        self._timeline = timeline
        self._tokens: dict[tuple[str, str], tuple[Request, Record]] = {}

    # The operations, each named as in AWS and returning AWS's output.

    def provision_product(self, request: Request) -> dict[str, Any]:
        """Follow API_ProvisionProduct."""
        return {"RecordDetail": self._once("ProvisionToken", request, self._provision)}

    def update_provisioned_product(self, request: Request) -> dict[str, Any]:
        """Follow API_UpdateProvisionedProduct."""
        return {"RecordDetail": self._once("UpdateToken", request, self._update)}

    def terminate_provisioned_product(self, request: Request) -> dict[str, Any]:
        """Follow API_TerminateProvisionedProduct."""
        return {"RecordDetail": self._once("TerminateToken", request, self._terminate)}

    def update_provisioned_product_properties(self, request: Request) -> dict[str, Any]:
        """Follow API_UpdateProvisionedProductProperties; done at once, as no stack changes."""
        detail = self._once("IdempotencyToken", request, self._set_properties)
        return {
            "ProvisionedProductId": detail["ProvisionedProductId"],
            "ProvisionedProductProperties": request["ProvisionedProductProperties"],
            "RecordId": detail["RecordId"],
            "Status": detail["Status"],
        }

    # What each operation does once its token has proved to be new; all under the lock.

    def _provision(self, request: Request) -> Record:
        one_of(request, "ProductId", "ProductName", required=True)
        product = self._catalog.product(request.get("ProductId"), request.get("ProductName"))
        artifact = self._catalog.artifact(product, request)
        configuration = Configuration(
            product_id=product.id,
            product_name=product.name,
            artifact=artifact,
            path_id=self._catalog.path(product, request),
            parameters=_parameters(artifact, request.get("ProvisioningParameters", ()), {}),
            tags=_tags(request),
            notification_arns=tuple(request.get("NotificationArns", ())),
        )
        name = request["ProvisionedProductName"]
        if any(known.name == name for known in self._inventory.products.values()):
            message = f"A provisioned product named {name} already exists."
            raise DuplicateResourceException(message)
        made = ProvisionedProduct(name, request["ProvisionToken"], configuration)
        self._inventory.products[made.id] = made

        def work() -> list[dict[str, str]]:
            self._stacks.create(made.stack_name, configuration)
            return self._stacks.outputs(made.stack_name)

        return self._start(Record(PROVISION, made, configuration), work)

    def _update(self, request: Request) -> Record:
        changed = self._idle(request)
        if changed.status == "ERROR":
            message = f"Provisioned product {changed.id} has no running stack; terminate it."
            raise InvalidParametersException(message)
        current = changed.configuration
        wanted = self._wanted(current, request)

        def work() -> list[dict[str, str]]:
            if wanted != current:  # CloudFormation calls an update without a change an error
                self._stacks.update(changed.stack_name, current, wanted)
            return self._stacks.outputs(changed.stack_name)

        return self._start(Record(UPDATE, changed, wanted), work)

    def _wanted(self, current: Configuration, request: Request) -> Configuration:
        """Return what an update makes of `current`: whatever the request leaves out stays."""
        catalog = self._catalog
        renamed = one_of(request, "ProductId", "ProductName", required=False)
        product = (
            catalog.product(request.get("ProductId"), request.get("ProductName"))
            if renamed
            else catalog.product(current.product_id)
        )
        artifact, path_id = current.artifact, current.path_id
        pair = ("ProvisioningArtifactId", "ProvisioningArtifactName")
        if one_of(request, *pair, required=product.id != current.product_id):
            artifact = catalog.artifact(product, request)
        if one_of(request, "PathId", "PathName", required=False) or path_id not in catalog.paths(product.id):
            path_id = catalog.path(product, request)
        given = request.get("ProvisioningParameters", ())
        return replace(
            current,
            product_id=product.id,
            product_name=product.name,
            artifact=artifact,
            path_id=path_id,
            parameters=_parameters(artifact, given, current.parameters),
            tags=_tags(request) if "Tags" in request else current.tags,
        )

    def _terminate(self, request: Request) -> Record:
        doomed = self._idle(request)

        def work() -> list[dict[str, str]]:
            if not request.get("RetainPhysicalResources"):
                with suppress(StackError) if request.get("IgnoreErrors") else nullcontext():
                    self._stacks.delete(doomed.stack_name)
            return []

        return self._start(Record(TERMINATE, doomed, doomed.configuration), work)

    def _set_properties(self, request: Request) -> Record:
        wanted: Mapping[str, str] = request["ProvisionedProductProperties"]
        for key, value in wanted.items():
            pattern = _PROPERTIES.get(key)
            if not pattern or not pattern.fullmatch(value):
                message = f"Invalid provisioned product property {key}: {value}"
                raise InvalidParametersException(message)
        changed = self._inventory.find(request, "ProvisionedProductId", "ProvisionedProductName")
        if changed.status == "UNDER_CHANGE":
            message = f"Provisioned product {changed.id} is UNDER_CHANGE by {changed.last_record}."
            raise InvalidStateException(message)
        record = Record(UPDATE, changed, changed.configuration)
        changed.owner = wanted.get("OWNER", changed.owner)
        changed.launch_role = wanted.get("LAUNCH_ROLE", changed.launch_role)
        record.advance("SUCCEEDED")
        self._inventory.records[record.id] = record
        changed.last_record = record.id
        return record

    # The machinery behind them.

    def _once(self, token_member: str, request: Request, act: Callable[[Request], Record]) -> dict[str, Any]:
        """Act on a request unless its token has been used; return the record as it now stands.

        A refused request leaves its token unused. Raises InvalidParametersException for a token
        that came with another request.
        """
        key = (token_member, request[token_member])
        with self._inventory.lock:
            if key not in self._tokens:
                self._tokens[key] = (request, act(request))
            first, record = self._tokens[key]
            if first != request:
                message = f"{token_member} {key[1]} was used before, with a different request."
                raise InvalidParametersException(message)
            return record.detail()

    def _idle(self, request: Request) -> ProvisionedProduct:
        """Return the provisioned product that a request names, if nothing changes it just now."""
        product = self._inventory.find(request, "ProvisionedProductId", "ProvisionedProductName")
        if product.status == "UNDER_CHANGE":
            running = self._inventory.records[product.last_record or ""]
            message = (
                f"Another {running.type} operation is in progress on provisioned product "
                f"{product.id}, record {running.id}."
            )
            raise InvalidParametersException(message)
        return product

    def _start(self, record: Record, work: Work) -> Record:
        self._inventory.records[record.id] = record
        record.product.status = "UNDER_CHANGE"
        record.product.status_message = None
        record.product.last_record = record.product.last_provisioning_record = record.id
        self._timeline.add(partial(self._work, record, work))
        return record

    def _work(self, record: Record, work: Work) -> None:
        """Take a record to IN_PROGRESS and do its work; how that ended shows one step later."""
        with self._inventory.lock:
            record.advance("IN_PROGRESS")
        try:
            outputs = work()
        except StackError as error:
            self._timeline.add(partial(self._fail, record, error))
        else:
            self._timeline.add(partial(self._succeed, record, outputs))

    def _succeed(self, record: Record, outputs: list[dict[str, str]]) -> None:
        with self._inventory.lock:
            product = record.product
            record.outputs = outputs
            record.advance("SUCCEEDED")
            product.last_successful_provisioning_record = record.id
            product.configuration = record.configuration
            product.status = "AVAILABLE"
            if record.type == TERMINATE:
                del self._inventory.products[product.id]

    def _fail(self, record: Record, error: StackError) -> None:
        with self._inventory.lock:
            record.errors = [{"Code": error.code, "Description": str(error)}]
            record.advance("FAILED")
            # Only a failed update leaves a stack that still runs as it did.
            record.product.status = "TAINTED" if record.type == UPDATE else "ERROR"
            record.product.status_message = str(error)


def _tags(request: Request) -> Tags:
    return tuple((tag["Key"], tag["Value"]) for tag in request.get("Tags", ()))


def _parameters(artifact: Artifact, given: Iterable[Mapping[str, Any]], previous: Mapping[str, str]) -> dict[str, str]:
    """Return a value for each parameter of the template: given, else previous, else its default.

    Raises InvalidParametersException, naming the key.
    """
    known = {key: previous.get(key, default) for key, default in artifact.declared.items()}
    for parameter in given:
        key = parameter.get("Key", "")
        if key not in known:
            message = f"Parameter {key} does not exist in the template of {artifact.name}."
            raise InvalidParametersException(message)
        if parameter.get("UsePreviousValue"):
            if key not in previous:
                message = f"Parameter {key} has no previous value."
                raise InvalidParametersException(message)
        elif "Value" in parameter:
            known[key] = parameter["Value"]
        else:
            raise InvalidParametersException(f"Parameter {key} must have a value.")
    missing = [key for key, value in known.items() if value is None]
    if missing:
        raise InvalidParametersException(f"Parameters: [{', '.join(missing)}] must have values.")
    return {key: value for key, value in known.items() if value is not None}
