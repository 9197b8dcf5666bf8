"""An embedded AWS with a working Service Catalog, for trying the façade and for tests.

It is moto, which already speaks AWS's own HTTP protocols for CloudFormation, S3, SQS and STS, plus
what moto lacks: provisioned products, their records and the lifecycle of both.
"""

from servicecatalog_grpc.sandbox.aws import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from servicecatalog_grpc.sandbox.sandbox import Sandbox

__all__ = ["ACCESS_KEY_ID", "REGION", "SECRET_ACCESS_KEY", "Sandbox"]
