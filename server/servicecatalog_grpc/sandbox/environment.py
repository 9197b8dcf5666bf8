"""What a process needs to talk to the sandbox, and what a person needs to try it."""

import os
from collections.abc import MutableMapping
from urllib.parse import urlsplit

from servicecatalog_grpc.sandbox.aws import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from servicecatalog_grpc.sandbox.seeds import PRODUCTS

_WELCOME = """
ready
  gRPC  {address}
  AWS   {url}  (AWS CLI: aws --endpoint-url {url} …, with any credentials and region {region})

products
{products}

to paste, with grpcurl (https://github.com/fullstorydev/grpcurl)

# provision a bucket
PP=$(grpcurl -plaintext -d '{{"product_name": "s3-bucket", "provisioning_artifact_name": "v1",
  "provisioned_product_name": "demo", "provision_token": "demo-1",
  "provisioning_parameters": [{{"key": "BucketName", "value": "demo-bucket"}}]}}' \\
  {address} servicecatalog.v1.ProvisioningService/ProvisionProduct | tee /dev/stderr | grep -o 'pp-[a-z0-9]*')

# update it to version v2, once the first record has ended ({seconds:g} s)
grpcurl -plaintext -d '{{"provisioned_product_name": "demo", "provisioning_artifact_name": "v2"}}' \\
  {address} servicecatalog.v1.ProvisioningService/UpdateProvisionedProduct

# change its owner, once the update has ended
grpcurl -plaintext -d '{{"provisioned_product_id": "'$PP'",
  "provisioned_product_properties": {{"OWNER": "arn:aws:iam::123456789012:role/team"}}}}' \\
  {address} servicecatalog.v1.ProvisioningService/UpdateProvisionedProductProperties

the same without grpcurl
  {python} clients/python/examples/provision.py {address}

Ctrl-C stops both.
"""


def leave_own_settings(environment: MutableMapping[str, str]) -> None:
    """Drop the person's own AWS settings: none may decide where a sandbox's calls go, or with which credentials."""
    for variable in [name for name in environment if name.startswith("AWS_")]:
        del environment[variable]
    environment.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)


def enter_sandbox(environment: MutableMapping[str, str], url: str) -> None:
    """Point AWS's standard variables at the sandbox, so that whoever reads them talks to nothing else."""
    host = urlsplit(url).hostname or ""
    environment.update(
        AWS_ACCESS_KEY_ID=ACCESS_KEY_ID,
        AWS_SECRET_ACCESS_KEY=SECRET_ACCESS_KEY,
        AWS_REGION=REGION,
        AWS_ENDPOINT_URL_SERVICE_CATALOG=url,
        AWS_ENDPOINT_URL_STS=url,
        NO_PROXY=host,
        no_proxy=host,
    )


def welcome(address: str, url: str, *, python: str, record_seconds: float) -> str:
    """Return what the sandbox says when it is ready: addresses, products and commands to paste."""
    products = "\n".join(f"  {name:<14}{', '.join(versions)}" for name, versions in PRODUCTS.items())
    return _WELCOME.format(
        address=address, url=url, region=REGION, products=products, python=python, seconds=record_seconds
    ).strip("\n")
