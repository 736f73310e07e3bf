"""No secret of a URL stays in a text, and what is no secret stays as it is."""

import time

import pytest

from glus.common.urls import hide_secrets, holds_secret

SECRET = "s3cr3tXYZ"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://me:{SECRET}@host:5000/a", "http://me:***@host:5000/a"),
        (f"MLflow at 'https://me:{SECRET}@host': refused", "MLflow at 'https://me:***@host': refused"),
        (f"postgresql+psycopg2://me:{SECRET}@db/runs", "postgresql+psycopg2://me:***@db/runs"),
        (f"mysql://me:{SECRET}/with/slash+@db/runs", "mysql://me:***@db/runs"),
        (f"mysql://me:p@{SECRET}@db/runs?x=a@b", "mysql://me:***@db/runs?x=a@b"),
        (f"mysql://me:12345{SECRET}@db", "mysql://me:***@db"),
        (f"redis://:{SECRET}@db", "redis://:***@db"),
        (f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}/K7MDENG@bucket/a", "s3://***:***@bucket/a"),
        (f"s3:/key:{SECRET}@bucket/a", "s3:/***:***@bucket/a"),
        (f"simplecache::s3://key:{SECRET}@bucket/a", "simplecache::s3://***:***@bucket/a"),
        (f"me:{SECRET}@host:/data/shards", "me:***@host:/data/shards"),
        (
            f"cannot copy from 'lab_user:{SECRET}@node1.cluster:~/runs'",
            "cannot copy from 'lab_user:***@node1.cluster:~/runs'",
        ),
        (f"...see:http://me:{SECRET}@host", "...see:http://me:***@host"),
        (f"https://{SECRET}@github.com/a/b", "https://***@github.com/a/b"),
        (f'["http://a:80","http://me:{SECRET}@h"]', '["http://a:80","http://me:***@h"]'),
        (f"https://h/a?x=1&access_token={SECRET}&y=2", "https://h/a?x=1&access_token=***&y=2"),
        (f"https://h/a?token={SECRET}", "https://h/a?token=***"),
        (f"https://h/a?X-Amz-Credential={SECRET}%2Fa&X-Amz-Signature={SECRET}", None),
        (f"https://h/a?X-Amz-Security-Token={SECRET}&X-Amz-Date=20260101", None),
        (f"https://h/a?AWSAccessKeyId={SECRET}&Signature={SECRET}&Expires=1", None),
        (f"https://h/a?sv=2020&sig={SECRET}", "https://h/a?sv=2020&sig=***"),
        (f"https://h/a?X-Goog-Signature={SECRET}", None),
        (f"postgresql://h/db?user=me&password={SECRET}", "postgresql://h/db?user=me&password=***"),
        (f"mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3D{SECRET}", "mssql+pyodbc:///?odbc_connect=***"),
        (f"AWS_SECRET_ACCESS_KEY={SECRET} aws", "AWS_SECRET_ACCESS_KEY=*** aws"),
        (f"MLFLOW_TRACKING_PASSWORD='{SECRET}'", "MLFLOW_TRACKING_PASSWORD='***'"),
        (f"host=db password={SECRET} user=me", "host=db password=*** user=me"),
        (f"Authorization: Bearer {SECRET}abc", "Authorization: Bearer ***"),
        ("key AKIAIOSFODNN7EXAMPLE is", "key AKIA*** is"),
        (f"two: ftp://a:{SECRET}@h, ftp://b:{SECRET}@h", "two: ftp://a:***@h, ftp://b:***@h"),
    ],
)
def test_a_secret_is_masked_and_the_rest_stays(text: str, shown: str | None) -> None:
    hidden = hide_secrets(text)
    assert SECRET not in hidden and "AKIAIOSFODNN7EXAMPLE" not in hidden
    assert shown is None or hidden == shown
    assert holds_secret(text) and not holds_secret(hidden)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me/a b/mlflow.db",
        "http://host:5000/a@b and http://host:5000",
        'http://host:5000", "me@host"',
        "postgresql://me@host/db",
        "abfs://container@account.dfs.core.windows.net/a",
        "ssh://git@host/a",
        "file:///a:b@c",
        "http://server: connection refused for me@host",
        "model.tokenizer=a tokens=80 seed=1 key=value",
        "C:/a:b@c",
        "step 3: a/b:c@d",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide_secrets(text) == text


@pytest.mark.parametrize("part", ["a", "://", ":", "@", "a_", "?token", "&", "http://a:", "A1_"])
def test_a_long_text_takes_no_long_time(part: str) -> None:
    """Quadratic work on a text of 300 kB would be minutes of a core."""
    start = time.process_time()
    hide_secrets(part * (300_000 // len(part)))
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("uri='//u:s3cr3t@127.0.0.1/x' is no place", "uri='//u:***@127.0.0.1/x' is no place"),
        ("//:s3cr3t@host", "//:***@host"),
        ("a//b:c@d", "a//b:c@d"),
        ("http://host:5000//b:c", "http://host:5000//b:c"),
        ("// a comment: me@host", "// a comment: me@host"),
    ],
)
def test_a_url_without_a_scheme_shows_no_password(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden
