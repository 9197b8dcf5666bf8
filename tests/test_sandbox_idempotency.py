"""A token makes a request happen once, however often and however concurrently it comes."""

from concurrent.futures import ThreadPoolExecutor

from sandbox_fixtures import Aws, aws, parameters, refused

__all__ = ["aws"]


def test_sixteen_concurrent_requests_with_one_token_make_one_product(aws: Aws) -> None:
    with ThreadPoolExecutor(16) as pool:
        records = list(pool.map(lambda _: aws.provision(ProvisionToken="same"), range(16)))
    assert len({record["RecordId"] for record in records}) == 1
    aws.ended(records[0])
    assert len(aws.catalog.search_provisioned_products()["ProvisionedProducts"]) == 1
    assert len(aws.cloudformation.describe_stacks()["Stacks"]) == 1


def test_sixteen_concurrent_requests_with_own_tokens_make_one_product_of_a_name(aws: Aws) -> None:
    def attempt(number: int) -> str:
        try:
            aws.provision(ProvisionToken=f"token-{number}")
        except aws.catalog.exceptions.DuplicateResourceException:
            return "duplicate"
        return "made"

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(attempt, range(16))) == ["duplicate"] * 15 + ["made"]


def test_a_repeated_request_gets_its_record_as_it_now_stands(aws: Aws) -> None:
    first = aws.provision(ProvisionToken="token")
    aws.ended(first)
    again = aws.provision(ProvisionToken="token")
    assert again["RecordId"] == first["RecordId"]
    assert again["Status"] == "SUCCEEDED"


def test_a_token_with_another_request_is_refused(aws: Aws) -> None:
    aws.provision(ProvisionToken="token")
    with refused("InvalidParametersException", "ProvisionToken token was used before"):
        aws.provision(name="other", ProvisionToken="token")


def test_a_token_counts_for_its_operation_only(aws: Aws) -> None:
    created = aws.provisioned(ProvisionToken="token")["RecordDetail"]
    updated = aws.update(UpdateToken="token")["RecordDetail"]
    assert updated["RecordId"] != created["RecordId"]


def test_updates_terminations_and_properties_are_repeated_safely(aws: Aws) -> None:
    id_ = aws.provisioned()["RecordDetail"]["ProvisionedProductId"]
    properties = {
        "ProvisionedProductId": id_,
        "ProvisionedProductProperties": {"OWNER": "arn:aws:iam::123456789012:user/alice"},
        "IdempotencyToken": "token",
    }
    owned, owned_again = (aws.catalog.update_provisioned_product_properties(**properties) for _ in range(2))
    assert owned["RecordId"] == owned_again["RecordId"]
    wanted = parameters(BucketName="other-bucket")
    updates = [
        aws.update(UpdateToken="token", ProvisioningParameters=wanted)["RecordDetail"]["RecordId"] for _ in range(2)
    ]
    assert updates[0] == updates[1]
    request = {"ProvisionedProductId": id_, "TerminateToken": "token"}
    terminated = aws.catalog.terminate_provisioned_product(**request)["RecordDetail"]
    aws.ended(terminated)
    # The product is gone by now, and still the repeated request is known.
    again = aws.catalog.terminate_provisioned_product(**request)["RecordDetail"]
    assert (again["RecordId"], again["Status"]) == (terminated["RecordId"], "SUCCEEDED")
