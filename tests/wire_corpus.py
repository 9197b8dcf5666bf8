"""Requests to the façade, each beside the arguments that one would give to boto3. Both sides are written by hand."""

from typing import Any, NamedTuple

from google.protobuf.message import Message
from servicecatalog.v1 import provisioning_pb2
from servicecatalog.v1 import provisioning_service_pb2 as pb


class Row(NamedTuple):
    """A request, the same for boto3, and the member of the latter that holds the token."""

    name: str
    request: Message
    kwargs: dict[str, Any]
    token_member: str


def _provision(name: str, fields: dict[str, Any], members: dict[str, Any]) -> Row:
    """Put the fields and the members in place of, or beside, the ones that all rows have; None takes one away."""
    request = pb.ProvisionProductRequest(
        **{
            "product_id": "prod-1",
            "provisioning_artifact_id": "pa-1",
            "provisioned_product_name": "mine",
            "provision_token": "order-17",
            **fields,
        }
    )
    kwargs = {
        "ProductId": "prod-1",
        "ProvisioningArtifactId": "pa-1",
        "ProvisionedProductName": "mine",
        "ProvisionToken": "order-17",
        **members,
    }
    return Row(f"provision: {name}", request, _without_none(kwargs), "ProvisionToken")


def _update(name: str, fields: dict[str, Any], members: dict[str, Any]) -> Row:
    request = pb.UpdateProvisionedProductRequest(
        **{"provisioned_product_id": "pp-1", "update_token": "order-18", **fields}
    )
    kwargs = {"ProvisionedProductId": "pp-1", "UpdateToken": "order-18", **members}
    return Row(f"update: {name}", request, _without_none(kwargs), "UpdateToken")


def _properties(name: str, fields: dict[str, Any], members: dict[str, Any]) -> Row:
    request = pb.UpdateProvisionedProductPropertiesRequest(
        **{
            "provisioned_product_id": "pp-1",
            "provisioned_product_properties": {"OWNER": "arn:aws:iam::123456789012:user/ann"},
            "idempotency_token": "order-19",
            **fields,
        }
    )
    kwargs = {
        "ProvisionedProductId": "pp-1",
        "ProvisionedProductProperties": {"OWNER": "arn:aws:iam::123456789012:user/ann"},
        "IdempotencyToken": "order-19",
        **members,
    }
    return Row(f"properties: {name}", request, _without_none(kwargs), "IdempotencyToken")


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


_CREATE = provisioning_pb2.STACK_SET_OPERATION_TYPE_CREATE
_UPDATE = provisioning_pb2.STACK_SET_OPERATION_TYPE_UPDATE
_DELETE = provisioning_pb2.STACK_SET_OPERATION_TYPE_DELETE
_UNSPECIFIED = provisioning_pb2.STACK_SET_OPERATION_TYPE_UNSPECIFIED

_SNS = "arn:aws:sns:eu-central-1:123456789012:events"
_SNS_AT_THE_LIMIT = "arn:" + "p" * 63 + ":" + "s" * 63 + ":" + "r" * 63 + ":" + "123" + ":" + "n" * 1024
_PROVISIONED_ARN = "arn:aws:servicecatalog:us-east-1:123456789012:stack/mine/pp-1"

_PROVISION_ROWS = [
    _provision("by ids", {}, {}),
    _provision(
        "by names",
        {
            "product_id": None,
            "product_name": "s3-bucket",
            "provisioning_artifact_id": None,
            "provisioning_artifact_name": "v1",
        },
        {
            "ProductId": None,
            "ProductName": "s3-bucket",
            "ProvisioningArtifactId": None,
            "ProvisioningArtifactName": "v1",
        },
    ),
    _provision(
        "product by name, artifact by id",
        {"product_id": None, "product_name": "s3-bucket"},
        {"ProductId": None, "ProductName": "s3-bucket"},
    ),
    _provision(
        "product by id, artifact by name",
        {"provisioning_artifact_id": None, "provisioning_artifact_name": "v1"},
        {"ProvisioningArtifactId": None, "ProvisioningArtifactName": "v1"},
    ),
    _provision("path by id", {"path_id": "lpv2-1"}, {"PathId": "lpv2-1"}),
    _provision("path by name", {"path_name": "Portfolio of Ann"}, {"PathName": "Portfolio of Ann"}),
    _provision("ids with every kind of character", {"product_id": "-_aZ09"}, {"ProductId": "-_aZ09"}),
    _provision("a product id of 1", {"product_id": "p"}, {"ProductId": "p"}),
    _provision("a product id of 100", {"product_id": "p" * 100}, {"ProductId": "p" * 100}),
    _provision(
        "an artifact id of 100",
        {"provisioning_artifact_id": "a" * 100},
        {"ProvisioningArtifactId": "a" * 100},
    ),
    _provision("a path id of 100", {"path_id": "l" * 100}, {"PathId": "l" * 100}),
    _provision("a path name of 100", {"path_name": "ä" * 100}, {"PathName": "ä" * 100}),
    _provision("a path name outside the BMP", {"path_name": "🛤" * 100}, {"PathName": "🛤" * 100}),
    _provision(
        "a product name of 8191",
        {"product_id": None, "product_name": "n" * 8191},
        {"ProductId": None, "ProductName": "n" * 8191},
    ),
    _provision(
        "a product name in Japanese",
        {"product_id": None, "product_name": "バケット 一号"},
        {"ProductId": None, "ProductName": "バケット 一号"},
    ),
    _provision(
        "a product name with JSON in it",
        {"product_id": None, "product_name": '{"a": ["\\", null]}'},
        {"ProductId": None, "ProductName": '{"a": ["\\", null]}'},
    ),
    _provision(
        "an artifact name of 8192",
        {"provisioning_artifact_id": None, "provisioning_artifact_name": "v" * 8192},
        {"ProvisioningArtifactId": None, "ProvisioningArtifactName": "v" * 8192},
    ),
    _provision(
        "an artifact name with a line break",
        {"provisioning_artifact_id": None, "provisioning_artifact_name": "v1\nv2\ttab"},
        {"ProvisioningArtifactId": None, "ProvisioningArtifactName": "v1\nv2\ttab"},
    ),
    _provision("in English", {"accept_language": "en"}, {"AcceptLanguage": "en"}),
    _provision("in Japanese", {"accept_language": "jp"}, {"AcceptLanguage": "jp"}),
    _provision("in Chinese", {"accept_language": "zh"}, {"AcceptLanguage": "zh"}),
    _provision("an empty language is none", {"accept_language": ""}, {}),
    _provision("a name of 1", {"provisioned_product_name": "7"}, {"ProvisionedProductName": "7"}),
    _provision("a name of 128", {"provisioned_product_name": "n" * 128}, {"ProvisionedProductName": "n" * 128}),
    _provision(
        "a name with every kind of character",
        {"provisioned_product_name": "Z9.a_b-c."},
        {"ProvisionedProductName": "Z9.a_b-c."},
    ),
    _provision("a token of 1", {"provision_token": "t"}, {"ProvisionToken": "t"}),
    _provision("a token of 128", {"provision_token": "t" * 128}, {"ProvisionToken": "t" * 128}),
    _provision("a token with every kind of character", {"provision_token": "0aZ_-_-"}, {"ProvisionToken": "0aZ_-_-"}),
    _provision("no token", {"provision_token": None}, {"ProvisionToken": None}),
    _provision("an empty token is none", {"provision_token": ""}, {"ProvisionToken": None}),
    _provision(
        "one parameter",
        {"provisioning_parameters": [{"key": "BucketName", "value": "logs"}]},
        {"ProvisioningParameters": [{"Key": "BucketName", "Value": "logs"}]},
    ),
    _provision(
        "an empty value",
        {"provisioning_parameters": [{"key": "Prefix", "value": ""}]},
        {"ProvisioningParameters": [{"Key": "Prefix", "Value": ""}]},
    ),
    _provision(
        "no value",
        {"provisioning_parameters": [{"key": "Prefix"}]},
        {"ProvisioningParameters": [{"Key": "Prefix"}]},
    ),
    _provision(
        "parameters in their order, with a repeated key",
        {
            "provisioning_parameters": [
                {"key": "b", "value": "1"},
                {"key": "a", "value": "2"},
                {"key": "b", "value": "3"},
            ]
        },
        {
            "ProvisioningParameters": [
                {"Key": "b", "Value": "1"},
                {"Key": "a", "Value": "2"},
                {"Key": "b", "Value": "3"},
            ]
        },
    ),
    _provision(
        "a key of 1000 and a value of 4096",
        {"provisioning_parameters": [{"key": "k" * 1000, "value": "v" * 4096}]},
        {"ProvisioningParameters": [{"Key": "k" * 1000, "Value": "v" * 4096}]},
    ),
    _provision(
        "a key of 1000 and a value of 4096 outside the BMP",
        {"provisioning_parameters": [{"key": "🔑" * 1000, "value": "💎" * 4096}]},
        {"ProvisioningParameters": [{"Key": "🔑" * 1000, "Value": "💎" * 4096}]},
    ),
    _provision(
        "a value with control characters",
        {"provisioning_parameters": [{"key": "Raw", "value": "\x00\x01\x1b\x7f\r\n\u2028\ufeff\ufffe"}]},
        {"ProvisioningParameters": [{"Key": "Raw", "Value": "\x00\x01\x1b\x7f\r\n\u2028\ufeff\ufffe"}]},
    ),
    _provision(
        "a value in Arabic, with a combining mark and an emoji of several code points",
        {"provisioning_parameters": [{"key": "Text", "value": "سلة e\u0301 👩\u200d💻"}]},
        {"ProvisioningParameters": [{"Key": "Text", "Value": "سلة e\u0301 👩\u200d💻"}]},
    ),
    _provision(
        "a value that looks like another type",
        {
            "provisioning_parameters": [
                {"key": "Count", "value": "007"},
                {"key": "On", "value": "true"},
                {"key": "Nothing", "value": "null"},
            ]
        },
        {
            "ProvisioningParameters": [
                {"Key": "Count", "Value": "007"},
                {"Key": "On", "Value": "true"},
                {"Key": "Nothing", "Value": "null"},
            ]
        },
    ),
    _provision(
        "a value that is a secret's reference",
        {"provisioning_parameters": [{"key": "Password", "value": "{{resolve:ssm-secure:/db/password:1}}"}]},
        {"ProvisioningParameters": [{"Key": "Password", "Value": "{{resolve:ssm-secure:/db/password:1}}"}]},
    ),
    _provision(
        "200 parameters",
        {"provisioning_parameters": [{"key": f"P{n}", "value": str(n)} for n in range(200)]},
        {"ProvisioningParameters": [{"Key": f"P{n}", "Value": str(n)} for n in range(200)]},
    ),
    _provision(
        "one tag",
        {"tags": [{"key": "team", "value": "blue"}]},
        {"Tags": [{"Key": "team", "Value": "blue"}]},
    ),
    _provision(
        "50 tags",
        {"tags": [{"key": f"key-{n}", "value": f"value-{n}"} for n in range(50)]},
        {"Tags": [{"Key": f"key-{n}", "Value": f"value-{n}"} for n in range(50)]},
    ),
    _provision(
        "a tag of 128 and 256",
        {"tags": [{"key": "k" * 128, "value": "v" * 256}]},
        {"Tags": [{"Key": "k" * 128, "Value": "v" * 256}]},
    ),
    _provision("a tag of 1 and 1", {"tags": [{"key": "k", "value": "v"}]}, {"Tags": [{"Key": "k", "Value": "v"}]}),
    _provision(
        "tags in other scripts",
        {"tags": [{"key": "команда", "value": "蓝色 ٣"}, {"key": "größe", "value": "½ Ⅷ"}]},
        {"Tags": [{"Key": "команда", "Value": "蓝色 ٣"}, {"Key": "größe", "Value": "½ Ⅷ"}]},
    ),
    _provision(
        "tags with every separator",
        {"tags": [{"key": "a_b.c:d/e=f+g-h@i j", "value": "_.:/=+-@"}]},
        {"Tags": [{"Key": "a_b.c:d/e=f+g-h@i j", "Value": "_.:/=+-@"}]},
    ),
    _provision(
        "the same tag twice",
        {"tags": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]},
        {"Tags": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]},
    ),
    _provision("one topic", {"notification_arns": [_SNS]}, {"NotificationArns": [_SNS]}),
    _provision(
        "5 topics",
        {"notification_arns": [f"arn:aws:sns:us-east-1:123456789012:t{n}" for n in range(5)]},
        {"NotificationArns": [f"arn:aws:sns:us-east-1:123456789012:t{n}" for n in range(5)]},
    ),
    _provision(
        "topics of other partitions",
        {
            "notification_arns": [
                "arn:aws-cn:sns:cn-north-1:123456789012:t",
                "arn:aws-us-gov:sns:us-gov-west-1:123456789012:t.fifo",
            ]
        },
        {
            "NotificationArns": [
                "arn:aws-cn:sns:cn-north-1:123456789012:t",
                "arn:aws-us-gov:sns:us-gov-west-1:123456789012:t.fifo",
            ]
        },
    ),
    _provision(
        "a topic of 1224", {"notification_arns": [_SNS_AT_THE_LIMIT]}, {"NotificationArns": [_SNS_AT_THE_LIMIT]}
    ),
    _provision("empty preferences", {"provisioning_preferences": {}}, {"ProvisioningPreferences": {}}),
    _provision(
        "accounts",
        {"provisioning_preferences": {"stack_set_accounts": ["123456789012", "000000000000"]}},
        {"ProvisioningPreferences": {"StackSetAccounts": ["123456789012", "000000000000"]}},
    ),
    _provision(
        "regions",
        {"provisioning_preferences": {"stack_set_regions": ["us-east-1", "eu-central-1", "us-east-1"]}},
        {"ProvisioningPreferences": {"StackSetRegions": ["us-east-1", "eu-central-1", "us-east-1"]}},
    ),
    _provision(
        "a failure tolerance of 0",
        {"provisioning_preferences": {"stack_set_failure_tolerance_count": 0}},
        {"ProvisioningPreferences": {"StackSetFailureToleranceCount": 0}},
    ),
    _provision(
        "the largest failure tolerance that int32 holds",
        {"provisioning_preferences": {"stack_set_failure_tolerance_count": 2147483647}},
        {"ProvisioningPreferences": {"StackSetFailureToleranceCount": 2147483647}},
    ),
    _provision(
        "a failure tolerance of 0 percent",
        {"provisioning_preferences": {"stack_set_failure_tolerance_percentage": 0}},
        {"ProvisioningPreferences": {"StackSetFailureTolerancePercentage": 0}},
    ),
    _provision(
        "a failure tolerance of 100 percent",
        {"provisioning_preferences": {"stack_set_failure_tolerance_percentage": 100}},
        {"ProvisioningPreferences": {"StackSetFailureTolerancePercentage": 100}},
    ),
    _provision(
        "a concurrency of 1",
        {"provisioning_preferences": {"stack_set_max_concurrency_count": 1}},
        {"ProvisioningPreferences": {"StackSetMaxConcurrencyCount": 1}},
    ),
    _provision(
        "a concurrency of 1 percent",
        {"provisioning_preferences": {"stack_set_max_concurrency_percentage": 1}},
        {"ProvisioningPreferences": {"StackSetMaxConcurrencyPercentage": 1}},
    ),
    _provision(
        "a concurrency of 100 percent",
        {"provisioning_preferences": {"stack_set_max_concurrency_percentage": 100}},
        {"ProvisioningPreferences": {"StackSetMaxConcurrencyPercentage": 100}},
    ),
    _provision(
        "a concurrency one above the failure tolerance",
        {
            "provisioning_preferences": {
                "stack_set_failure_tolerance_count": 4,
                "stack_set_max_concurrency_count": 5,
            }
        },
        {"ProvisioningPreferences": {"StackSetFailureToleranceCount": 4, "StackSetMaxConcurrencyCount": 5}},
    ),
    _provision(
        "a concurrency by count, a failure tolerance by percentage",
        {
            "provisioning_preferences": {
                "stack_set_failure_tolerance_percentage": 0,
                "stack_set_max_concurrency_count": 50,
            }
        },
        {"ProvisioningPreferences": {"StackSetFailureTolerancePercentage": 0, "StackSetMaxConcurrencyCount": 50}},
    ),
    _provision(
        "a concurrency by percentage, a failure tolerance by count",
        {
            "provisioning_preferences": {
                "stack_set_failure_tolerance_count": 0,
                "stack_set_max_concurrency_percentage": 100,
            }
        },
        {"ProvisioningPreferences": {"StackSetFailureToleranceCount": 0, "StackSetMaxConcurrencyPercentage": 100}},
    ),
    _provision(
        "everything",
        {
            "accept_language": "en",
            "product_id": None,
            "product_name": "s3-bucket",
            "provisioning_artifact_id": None,
            "provisioning_artifact_name": "v2",
            "path_name": "main",
            "provisioned_product_name": "logs.eu-1",
            "provisioning_parameters": [{"key": "BucketName", "value": "logs"}, {"key": "Prefix", "value": ""}],
            "provisioning_preferences": {
                "stack_set_accounts": ["123456789012"],
                "stack_set_regions": ["eu-central-1"],
                "stack_set_failure_tolerance_count": 1,
                "stack_set_max_concurrency_count": 2,
            },
            "tags": [{"key": "team", "value": "blue"}],
            "notification_arns": [_SNS],
            "provision_token": "order-20",
        },
        {
            "AcceptLanguage": "en",
            "ProductId": None,
            "ProductName": "s3-bucket",
            "ProvisioningArtifactId": None,
            "ProvisioningArtifactName": "v2",
            "PathName": "main",
            "ProvisionedProductName": "logs.eu-1",
            "ProvisioningParameters": [{"Key": "BucketName", "Value": "logs"}, {"Key": "Prefix", "Value": ""}],
            "ProvisioningPreferences": {
                "StackSetAccounts": ["123456789012"],
                "StackSetRegions": ["eu-central-1"],
                "StackSetFailureToleranceCount": 1,
                "StackSetMaxConcurrencyCount": 2,
            },
            "Tags": [{"Key": "team", "Value": "blue"}],
            "NotificationArns": [_SNS],
            "ProvisionToken": "order-20",
        },
    ),
]

_UPDATE_ROWS = [
    _update("by id alone", {}, {}),
    _update(
        "by name",
        {"provisioned_product_id": None, "provisioned_product_name": "mine"},
        {"ProvisionedProductId": None, "ProvisionedProductName": "mine"},
    ),
    _update(
        "by ARN",
        {"provisioned_product_id": None, "provisioned_product_name": _PROVISIONED_ARN},
        {"ProvisionedProductId": None, "ProvisionedProductName": _PROVISIONED_ARN},
    ),
    _update(
        "a name of 128",
        {"provisioned_product_id": None, "provisioned_product_name": "n" * 128},
        {"ProvisionedProductId": None, "ProvisionedProductName": "n" * 128},
    ),
    _update("an id of 100", {"provisioned_product_id": "p" * 100}, {"ProvisionedProductId": "p" * 100}),
    _update("product by id", {"product_id": "prod-1"}, {"ProductId": "prod-1"}),
    _update("product by name", {"product_name": "s3-bucket"}, {"ProductName": "s3-bucket"}),
    _update("artifact by id", {"provisioning_artifact_id": "pa-2"}, {"ProvisioningArtifactId": "pa-2"}),
    _update("artifact by name", {"provisioning_artifact_name": "v2"}, {"ProvisioningArtifactName": "v2"}),
    _update("path by id", {"path_id": "lpv2-1"}, {"PathId": "lpv2-1"}),
    _update("path by name", {"path_name": "ポートフォリオ"}, {"PathName": "ポートフォリオ"}),
    _update("in English", {"accept_language": "en"}, {"AcceptLanguage": "en"}),
    _update("in Japanese", {"accept_language": "jp"}, {"AcceptLanguage": "jp"}),
    _update("in Chinese", {"accept_language": "zh"}, {"AcceptLanguage": "zh"}),
    _update("a token of 128", {"update_token": "9" * 128}, {"UpdateToken": "9" * 128}),
    _update("no token", {"update_token": None}, {"UpdateToken": None}),
    _update("an empty token is none", {"update_token": ""}, {"UpdateToken": None}),
    _update(
        "a new value",
        {"provisioning_parameters": [{"key": "BucketName", "value": "logs"}]},
        {"ProvisioningParameters": [{"Key": "BucketName", "Value": "logs"}]},
    ),
    _update(
        "an empty value",
        {"provisioning_parameters": [{"key": "Prefix", "value": ""}]},
        {"ProvisioningParameters": [{"Key": "Prefix", "Value": ""}]},
    ),
    _update(
        "the previous value",
        {"provisioning_parameters": [{"key": "BucketName", "use_previous_value": True}]},
        {"ProvisioningParameters": [{"Key": "BucketName", "UsePreviousValue": True}]},
    ),
    _update(
        "not the previous value",
        {"provisioning_parameters": [{"key": "BucketName", "value": "logs", "use_previous_value": False}]},
        {"ProvisioningParameters": [{"Key": "BucketName", "Value": "logs", "UsePreviousValue": False}]},
    ),
    _update(
        "the previous value and an empty one",
        {"provisioning_parameters": [{"key": "BucketName", "value": "", "use_previous_value": True}]},
        {"ProvisioningParameters": [{"Key": "BucketName", "Value": "", "UsePreviousValue": True}]},
    ),
    _update(
        "a key alone",
        {"provisioning_parameters": [{"key": "BucketName"}]},
        {"ProvisioningParameters": [{"Key": "BucketName"}]},
    ),
    _update(
        "previous, new, neither",
        {
            "provisioning_parameters": [
                {"key": "a", "use_previous_value": True},
                {"key": "b", "value": "2"},
                {"key": "c", "use_previous_value": False},
            ]
        },
        {
            "ProvisioningParameters": [
                {"Key": "a", "UsePreviousValue": True},
                {"Key": "b", "Value": "2"},
                {"Key": "c", "UsePreviousValue": False},
            ]
        },
    ),
    _update(
        "a key of 1000 and a value of 4096",
        {"provisioning_parameters": [{"key": "k" * 1000, "value": "😀" * 4096}]},
        {"ProvisioningParameters": [{"Key": "k" * 1000, "Value": "😀" * 4096}]},
    ),
    _update(
        "50 tags",
        {"tags": [{"key": f"ключ {n}", "value": f"値 {n}"} for n in range(50)]},
        {"Tags": [{"Key": f"ключ {n}", "Value": f"値 {n}"} for n in range(50)]},
    ),
    _update("empty preferences", {"provisioning_preferences": {}}, {"ProvisioningPreferences": {}}),
    _update(
        "creates instances",
        {"provisioning_preferences": {"stack_set_operation_type": _CREATE}},
        {"ProvisioningPreferences": {"StackSetOperationType": "CREATE"}},
    ),
    _update(
        "updates instances",
        {"provisioning_preferences": {"stack_set_operation_type": _UPDATE}},
        {"ProvisioningPreferences": {"StackSetOperationType": "UPDATE"}},
    ),
    _update(
        "deletes instances",
        {"provisioning_preferences": {"stack_set_operation_type": _DELETE}},
        {"ProvisioningPreferences": {"StackSetOperationType": "DELETE"}},
    ),
    _update(
        "an unspecified operation type is none",
        {"provisioning_preferences": {"stack_set_operation_type": _UNSPECIFIED}},
        {"ProvisioningPreferences": {}},
    ),
    _update(
        "a failure tolerance of 0",
        {"provisioning_preferences": {"stack_set_failure_tolerance_count": 0}},
        {"ProvisioningPreferences": {"StackSetFailureToleranceCount": 0}},
    ),
    _update(
        "a failure tolerance of 0 percent and a concurrency of 1 percent",
        {
            "provisioning_preferences": {
                "stack_set_failure_tolerance_percentage": 0,
                "stack_set_max_concurrency_percentage": 1,
            }
        },
        {"ProvisioningPreferences": {"StackSetFailureTolerancePercentage": 0, "StackSetMaxConcurrencyPercentage": 1}},
    ),
    _update(
        "100 percent of both",
        {
            "provisioning_preferences": {
                "stack_set_failure_tolerance_percentage": 100,
                "stack_set_max_concurrency_percentage": 100,
            }
        },
        {
            "ProvisioningPreferences": {
                "StackSetFailureTolerancePercentage": 100,
                "StackSetMaxConcurrencyPercentage": 100,
            }
        },
    ),
    _update(
        "a concurrency of 1 and no tolerance",
        {"provisioning_preferences": {"stack_set_max_concurrency_count": 1}},
        {"ProvisioningPreferences": {"StackSetMaxConcurrencyCount": 1}},
    ),
    _update(
        "everything",
        {
            "accept_language": "zh",
            "provisioned_product_id": None,
            "provisioned_product_name": "mine",
            "product_id": "prod-1",
            "provisioning_artifact_name": "v2",
            "path_id": "lpv2-1",
            "provisioning_parameters": [
                {"key": "BucketName", "use_previous_value": True},
                {"key": "Prefix", "value": "", "use_previous_value": False},
            ],
            "provisioning_preferences": {
                "stack_set_accounts": ["123456789012", "210987654321"],
                "stack_set_regions": ["ap-northeast-1"],
                "stack_set_failure_tolerance_count": 0,
                "stack_set_max_concurrency_count": 1,
                "stack_set_operation_type": _DELETE,
            },
            "tags": [{"key": "team", "value": "blue"}],
            "update_token": "order-21",
        },
        {
            "AcceptLanguage": "zh",
            "ProvisionedProductId": None,
            "ProvisionedProductName": "mine",
            "ProductId": "prod-1",
            "ProvisioningArtifactName": "v2",
            "PathId": "lpv2-1",
            "ProvisioningParameters": [
                {"Key": "BucketName", "UsePreviousValue": True},
                {"Key": "Prefix", "Value": "", "UsePreviousValue": False},
            ],
            "ProvisioningPreferences": {
                "StackSetAccounts": ["123456789012", "210987654321"],
                "StackSetRegions": ["ap-northeast-1"],
                "StackSetFailureToleranceCount": 0,
                "StackSetMaxConcurrencyCount": 1,
                "StackSetOperationType": "DELETE",
            },
            "Tags": [{"Key": "team", "Value": "blue"}],
            "UpdateToken": "order-21",
        },
    ),
]

_PROPERTIES_ROWS = [
    _properties("an owner", {}, {}),
    _properties(
        "an owner that is a role",
        {"provisioned_product_properties": {"OWNER": "arn:aws:iam::123456789012:role/team/blue"}},
        {"ProvisionedProductProperties": {"OWNER": "arn:aws:iam::123456789012:role/team/blue"}},
    ),
    _properties(
        "an owner that is an assumed role",
        {"provisioned_product_properties": {"OWNER": "arn:aws:sts::123456789012:assumed-role/blue/ann@example.org"}},
        {"ProvisionedProductProperties": {"OWNER": "arn:aws:sts::123456789012:assumed-role/blue/ann@example.org"}},
    ),
    _properties(
        "a launch role",
        {"provisioned_product_properties": {"LAUNCH_ROLE": "arn:aws:iam::123456789012:role/launch"}},
        {"ProvisionedProductProperties": {"LAUNCH_ROLE": "arn:aws:iam::123456789012:role/launch"}},
    ),
    _properties(
        "an owner and a launch role",
        {
            "provisioned_product_properties": {
                "OWNER": "arn:aws-cn:iam::123456789012:user/ann",
                "LAUNCH_ROLE": "arn:aws-cn:iam::123456789012:role/launch",
            }
        },
        {
            "ProvisionedProductProperties": {
                "OWNER": "arn:aws-cn:iam::123456789012:user/ann",
                "LAUNCH_ROLE": "arn:aws-cn:iam::123456789012:role/launch",
            }
        },
    ),
    _properties(
        "a launch role of 1024",
        {"provisioned_product_properties": {"LAUNCH_ROLE": "arn:aws:iam::123456789012:role/" + "r" * 993}},
        {"ProvisionedProductProperties": {"LAUNCH_ROLE": "arn:aws:iam::123456789012:role/" + "r" * 993}},
    ),
    _properties("an id of 100", {"provisioned_product_id": "p" * 100}, {"ProvisionedProductId": "p" * 100}),
    _properties("in English", {"accept_language": "en"}, {"AcceptLanguage": "en"}),
    _properties("in Japanese", {"accept_language": "jp"}, {"AcceptLanguage": "jp"}),
    _properties("in Chinese", {"accept_language": "zh"}, {"AcceptLanguage": "zh"}),
    _properties("a token of 1", {"idempotency_token": "Z"}, {"IdempotencyToken": "Z"}),
    _properties("a token of 128", {"idempotency_token": "Z" * 128}, {"IdempotencyToken": "Z" * 128}),
    _properties("no token", {"idempotency_token": None}, {"IdempotencyToken": None}),
    _properties("an empty token is none", {"idempotency_token": ""}, {"IdempotencyToken": None}),
]

ROWS = [*_PROVISION_ROWS, *_UPDATE_ROWS, *_PROPERTIES_ROWS]
