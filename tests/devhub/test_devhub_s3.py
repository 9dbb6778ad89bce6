"""The repository as an S3 bucket, asked by a real S3 client, against what git and DVC hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from support.repos import Truth, big_directory

from dagfs.devhub.serve import Hub

CONFIG = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}, proxies={})


def endpoint(hub: Hub) -> str:
    return f"{hub.host}/api/v1/repo-buckets/s3/{hub.name.split('/')[0]}"


def client_of(hub: Hub, key: str = "any"):
    return boto3.client(
        "s3",
        endpoint_url=endpoint(hub),
        aws_access_key_id=key,
        aws_secret_access_key=key,
        region_name="us-east-1",
        config=CONFIG,
    )


@pytest.fixture(scope="module")
def bucket(hub: Hub) -> tuple[object, str]:
    """A client, and the bucket's name."""
    return client_of(hub), hub.name.split("/")[1]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with 2,500 files in one directory."""
    truth = big_directory(tmp_path_factory.mktemp("many") / "many", 2500)
    with Hub(truth.path) as running:
        yield running


def keys_by(client, bucket: str, call: str = "list_objects_v2", **options: object) -> tuple[list[str], list[str]]:
    """Give keys and common prefixes of all pages."""
    keys, prefixes = [], []
    for page in client.get_paginator(call).paginate(Bucket=bucket, **options):
        keys += [row["Key"] for row in page.get("Contents", [])]
        prefixes += [row["Prefix"] for row in page.get("CommonPrefixes", [])]
    return keys, prefixes


def code_of(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


@pytest.mark.parametrize("call", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("size", [7, 1000])
def test_the_bucket_lists_every_file_of_git_and_dvc_in_the_order_of_keys(bucket, sample: Truth, call, size) -> None:
    keys, prefixes = keys_by(*bucket, call, PaginationConfig={"PageSize": size})
    assert keys == sorted(sample.files, key=lambda path: path.encode())
    assert prefixes == []


@pytest.mark.parametrize("call", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("prefix", ["", "images/", "images/0", "odd git/", "legacy", "no such/", "images/000"])
@pytest.mark.parametrize("size", [2, 1000])
def test_a_delimiter_folds_what_lies_below(bucket, sample: Truth, call, prefix, size) -> None:
    keys, prefixes = keys_by(*bucket, call, Prefix=prefix, Delimiter="/", PaginationConfig={"PageSize": size})
    rests = [path.removeprefix(prefix) for path in sample.files if path.startswith(prefix)]
    assert sorted(keys) == sorted(prefix + rest for rest in rests if "/" not in rest)
    folded = {prefix + rest.split("/")[0] + "/" for rest in rests if "/" in rest}
    without_files = {"vendor/"} if prefix == "" else set()  # only a submodule is in it
    assert prefixes == sorted(folded | without_files)


def test_sizes_and_bytes_are_the_commits_and_etags_are_md5_where_that_is_known(bucket, sample: Truth) -> None:
    client, name = bucket
    rows = {
        row["Key"]: row
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name)
        for row in page["Contents"]
    }
    assert {key: row["Size"] for key, row in rows.items()} == {key: len(data) for key, data in sample.files.items()}
    for key in ("README.md", "model.bin", "images/sub/deeper/x.jpg", "legacy/dos.txt", "odd git/" + "x" * 251 + ".txt"):
        if key not in sample.files:
            continue
        answer = client.get_object(Bucket=name, Key=key)
        head = client.head_object(Bucket=name, Key=key)
        assert answer["Body"].read() == sample.files[key], key
        assert answer["ETag"] == head["ETag"] == rows[key]["ETag"]
        assert head["ContentLength"] == len(sample.files[key])
        assert head["LastModified"] == rows[key]["LastModified"]
    assert rows["model.bin"]["ETag"] == f'"{hashlib.md5(sample.files["model.bin"]).hexdigest()}"'
    looks_like_md5 = {key for key, row in rows.items() if len(row["ETag"]) == 34}
    true_md5 = {key for key in rows if rows[key]["ETag"].strip('"') == hashlib.md5(sample.files[key]).hexdigest()}
    assert looks_like_md5 == true_md5
    assert len(true_md5) > 30


def test_a_range_gives_the_span(bucket, sample: Truth) -> None:
    client, name = bucket
    answer = client.get_object(Bucket=name, Key="model.bin", Range="bytes=1000-1999")
    assert answer["Body"].read() == sample.files["model.bin"][1000:2000]
    assert answer["ContentRange"] == f"bytes 1000-1999/{len(sample.files['model.bin'])}"


def test_what_is_not_there_has_s3s_names(bucket) -> None:
    client, name = bucket
    assert code_of(lambda: client.get_object(Bucket=name, Key="absent")) == (404, "NoSuchKey")
    assert code_of(lambda: client.get_object(Bucket=name, Key="images")) == (404, "NoSuchKey")
    assert code_of(lambda: client.list_objects_v2(Bucket="other")) == (404, "NoSuchBucket")
    assert code_of(lambda: client.head_object(Bucket=name, Key="absent")) == (404, "404")
    assert code_of(lambda: client.put_object(Bucket=name, Key="new", Body=b"")) == (405, "MethodNotAllowed")
    assert code_of(lambda: client.list_objects_v2(Bucket=name, Delimiter="a")) == (501, "NotImplemented")
    assert client.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_pages_have_a_thousand_keys_and_are_counted_as_listings(many: Hub) -> None:
    many.requests.reset()
    keys, _ = keys_by(client_of(many), "many", Prefix="data/", Delimiter="/")
    assert keys == [f"data/{i:06d}.bin" for i in range(2500)]
    assert many.requests.count("listing") == 3
    client_of(many).get_object(Bucket="many", Key=keys[0])["Body"].read()
    assert (many.requests.count("s3"), many.requests.bytes("s3")) == (1, 200)


def test_with_a_token_the_access_key_must_be_it(sample: Truth) -> None:
    with Hub(sample.path, token="secret") as private:
        name = private.name.split("/")[1]
        assert client_of(private, "secret").get_object(Bucket=name, Key="README.md")["Body"].read()
        wrong = client_of(private, "wrong")
        assert code_of(lambda: wrong.get_object(Bucket=name, Key="README.md")) == (403, "InvalidAccessKeyId")
        unsigned = requests.get(f"{endpoint(private)}/{name}/README.md", timeout=10)
        assert (unsigned.status_code, "<Code>AccessDenied</Code>" in unsigned.text) == (403, True)
