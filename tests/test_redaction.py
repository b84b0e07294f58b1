"""No secret is read outside: a property of texts, documents and settings."""

from __future__ import annotations

import ast
import base64
import html
import json
import re
import shlex
import string
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from gmm_dask.errors import SettingsError, shown
from gmm_dask.redaction import (
    HIDDEN,
    holds_secret,
    is_secret_name,
    redacted,
    redacted_document,
    secrets_in,
)
from gmm_dask.stage.settings import Settings, settings_from

SECRETS = st.text(string.ascii_letters + string.digits + "/+._~%-", min_size=8, max_size=60).filter(
    # No word of a message.
    lambda text: any(map(str.isalpha, text)) and any(map(str.isdigit, text))
)

# Where people put secrets by mistake.
IN_URLS = [
    "s3://user:{}@bucket/data",
    "s3://AKIAIOSFODNN7EXAMPLE:{}@bucket/data",
    "s3://:{}@bucket/data",
    "abfs://container:{}@account.dfs.core.windows.net/data",
    "tls://user:{}@10.0.0.1:8786",
    "https://host/data?X-Amz-Credential=a&X-Amz-Signature={}",
    "https://host/data?sv=2024&sig={}&se=2026",
    "gs://bucket/data?access_token={}",
    "https://host/data?key={}",
]
IN_TEXTS = [
    "AWS_SECRET_ACCESS_KEY={}",
    "password = {}",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=core.windows.net",
    "SharedAccessSignature={}",
    "failed with {{'aws_secret_access_key': '{}', 'anon': False}}",
    'got {{"token": "{}"}}',
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "Authorization: Bearer {}",
    "{{'authorization': 'token {}'}}",
    "the server was asked with Bearer {}",
    "Cookie: session={}; theme=dark",
    "database:\n  password: {}\n  user: me",
    "- pwd: '{}'   # of the staging database",
    "{{password: {}, user: me}}",
    "[database]\npassword = {}\nuser = me",
    "spring.datasource.password: {}",
    'spring.datasource.password="{} and more"',
    "auth:\n  api_key: |\n    {}\n    and more\n  user: me",
    '{{"password": "a\\"{}"}}',
    '{{\\"password\\": \\"{} and more\\", \\"user\\": \\"me\\"}}',
    "{{'token': b'{}'}}",
    "prefect config set PREFECT_API_AUTH_STRING='admin:{}'",
    "login of me with password: {} was refused",
]


@given(st.sampled_from(IN_URLS + IN_TEXTS), SECRETS)
@example("s3://user:{}@bucket/data", "8080/x@y")
def test_no_secret_is_left_in_a_text(template: str, secret: str) -> None:
    text = template.format(secret)
    assert secret not in redacted(text)
    assert secret not in redacted(f"The path {text} cannot be read: no answer.")
    assert secret not in redacted(shown(text))  # as an error of ours has it
    assert HIDDEN in redacted(text)
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "out/iris@7", "s3://bucket/out@7", "s3://bucket@7", "/data/year=2024/part-0.parquet",
        "s3://bucket/data/token=1/part-0.parquet", "tcp://127.0.0.1:8786", "tls://[::1]:8786",
        "abfs://container@account.dfs.core.windows.net/data", "someone@example.com",
        "event=pass start=1 log_likelihood=-3.5", "unknown key; known here: path, features",
        "a.parquet, row group 0, column 'token': 3 missing values (null or NaN).",
        "http://127.0.0.1:4200/api", "cluster.tls_key: there is no file key.pem.",
        "Published version 1: out/runs/0123456789abcdef", "data.path: s3://bucket/a b: c@d",
        "data.password: is named like a secret", "column 'password': missing",
        "def login(token: str, password: str | None = None) -> None", "token == other",
        "Bearer token is missing", "bearer of bad news", "Basic Authentication failed",
        "authorization: required by the server", "the password: none", "token: null",
        "The secret of a good fit: many rows", "/data/token:1/part-0.parquet",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
    assert not holds_secret(text)


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "GH_TOKEN", "token", "db-password", "AZURE_STORAGE_SAS", "key",
     "clientSecret", "AccountKey", "AZURE_STORAGE_CONNECTION_STRING"],
)  # fmt: skip
def test_names_that_tell(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["path", "tls_key", "keep", "monkey", "features", "KEYBOARD"])
def test_names_that_do_not_tell(name: str) -> None:
    assert not is_secret_name(name)


# Any characters that a variable may have, of which no word of a message is made.
ANY_SECRETS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=8, max_size=80
).filter(lambda text: any(map(str.isdigit, text)) and not text.isalnum() and text.strip() == text)


def with_backslashes(text: str) -> str:
    return "".join(char if char.isalnum() or char == "\n" else "\\" + char for char in text)


ESCAPES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "a URL": lambda text: quote(text, safe=""),
    "a path of a URL": quote,
    "a form": quote_plus,
    "a URL in lower case": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "JSON": json.dumps,
    "JSON in Unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON of a browser": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in a URL": lambda text: quote(json.dumps(text)),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "Python": repr,
    "a shell": shlex.quote,
    "a shell with backslashes": with_backslashes,
    "HTML": html.escape,
    "XML": lambda text: "".join(f"&#x{ord(char):x};" for char in text),
    "SQL": lambda text: text.replace("'", "''"),
    "CSV": lambda text: text.replace('"', '""'),
    "a template": lambda text: text.replace("$", "$$").replace("%", "%%"),
    "a format": lambda text: text.replace("{", "{{").replace("}", "}}"),
    "bytes": lambda text: repr(text.encode())[1:],
    "bytes, octal": lambda text: "".join(f"\\{byte:03o}" for byte in text.encode()),
    "Rust": lambda text: "".join(f"\\u{{{ord(char):x}}}" for char in text),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal in capitals": lambda text: text.encode().hex().upper(),
    "one line": lambda text: " ".join(text.split()),
    "a sentence": lambda text: " ".join(text.split()).rstrip("."),
    "a URL in HTML": lambda text: html.escape(quote_plus(text)),
}


@pytest.mark.parametrize("escape", ESCAPES)
@given(secret=ANY_SECRETS)
def test_no_secret_of_the_environment_is_left_however_it_is_escaped(
    escape: str, secret: str
) -> None:
    repeated = ESCAPES[escape](secret)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THE_TOKEN", secret)
        assert redacted(secret) == HIDDEN
        text = redacted(f"Request <{repeated}> failed.")
    start, end = text.index("<"), text.rindex(">")
    assert text[: start + 1] + text[end:] == "Request <> failed."
    assert text[start + 1 : end].strip("\\'\"") in (HIDDEN, f"%22{HIDDEN}%22")


@given(ANY_SECRETS, st.binary(max_size=7), st.binary(max_size=7), st.sampled_from(range(4)))
def test_no_secret_of_the_environment_is_left_in_base64(
    secret: str, before: bytes, after: bytes, form: int
) -> None:
    raw = before + secret.encode() + after
    encode = (base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes, base64.b64encode)
    encoded = encode[form](raw).decode()
    encoded = json.dumps(encoded) if form == 2 else quote(encoded) if form == 3 else encoded
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THE_TOKEN", secret)
        left = redacted(f"x {encoded} y").removeprefix("x ").removesuffix(" y")
    head, hidden, tail = left.partition(HIDDEN)
    assert hidden
    around = len(before) + len(after)  # and what shares a character with them
    assert len(head) + len(tail) <= 3 * (4 * (around + 4) // 3 + 8)
    assert secret not in left


@given(st.text(string.ascii_letters + string.digits, min_size=8, max_size=20), SECRETS)
def test_both_halves_of_an_auth_string_are_secrets(user: str, password: str) -> None:
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, f"{user}:{password}")
            header = base64.b64encode(f"{user}:{password}".encode()).decode()
            said = redacted(f"401 for {user}: {password} ({user}:{password}), sent {header}")
        assert not {user, password, header} & set(re.split(r"[\s():,]+", said))
        assert said.startswith("401 for ***: *** (***), sent ***")


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql://me:s3cr%2Ft-x@host/db", "s3cr/t-x"),
        ("HTTPS_PROXY", "http://me:hunter2-S3cr3t@proxy:3128", "hunter2-S3cr3t"),
        ("GCP_CREDENTIALS", '{"private_key": "-----BEGIN\\nMIIabcdef1\\n", "a": 1}', "MIIabcdef1"),
        ("SSH_PRIVATE_KEY", "-----BEGIN KEY-----\nb3BlbnNzaC1r\n-----END KEY-----", "b3BlbnNzaC1r"),
        ("AWS_SECRET_ACCESS_KEY", "/bPxRfiCYEXAMPLEKEY/wJalr", "/bPxRfiCYEXAMPLEKEY/wJalr"),
    ],
)  # fmt: skip
def test_secrets_within_a_variable_are_secrets(
    name: str, value: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert redacted(f"refused: {secret}") == f"refused: {HIDDEN}"
    assert secret not in redacted(f"refused: {value}")


def test_the_file_of_a_secret_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    assert redacted(f"{tmp_path}/token is not there") == f"{tmp_path}/token is not there"


ROOT = Path(__file__).parents[1]


def said_by_us() -> Iterator[str]:
    """Every line of the documentation, and every text in our code."""
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.yaml")):
        yield from page.read_text().splitlines()
    for module in (*ROOT.glob("gmm_dask/**/*.py"), *ROOT.glob("flows/*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_what_we_say_ourselves_stays() -> None:
    texts = list(said_by_us())
    assert len(texts) > 5000
    assert [text for text in texts if redacted(text) != text] == []


@given(
    st.lists(
        st.text(string.ascii_letters + string.digits + " _-.,%+=", min_size=1, max_size=12),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["/", "s3://bucket/", "./", "file:///"]),
)
def test_ordinary_paths_stay(folders: list[str], start: str) -> None:
    path = start + "/".join(folders) + "/year=2024/part-0.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THE_TOKEN", "hunter2-S3cr3t/x+y")
        assert redacted(path) == path
        assert redacted(f"{path}: does not exist.") == f"{path}: does not exist."


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "token", "api_key"]), inner, max_size=3)
        ),
        max_leaves=10,
    ),
    st.sampled_from(IN_URLS + IN_TEXTS),
    SECRETS,
)
def test_no_secret_is_left_in_a_document(document: Any, template: str, secret: str) -> None:
    whole = {"settings": [document, template.format(secret)], "password": secret}
    assert secret not in json.dumps(redacted_document(whole), ensure_ascii=False)
    said = "\n".join(secrets_in(whole))
    assert "settings" in said
    assert "password: is named like a secret" in said
    assert secret not in said


def test_long_texts_take_no_longer_than_they_are_long() -> None:
    begun = time.process_time()
    for text in ("a-" * 200_000, "key" * 100_000, "s3://" + "a:" * 100_000, "'token" * 50_000):
        redacted(text)
    assert time.process_time() - begun < 30  # quadratic time would be hours


# --- settings --------------------------------------------------------------------------------


def with_value(place: str, value: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"data": {"path": "data"}, "output": {"path": "out"}}
    section, key = place.split(".")
    document.setdefault(section, {})[key] = value
    return document


PLACES = ["data.path", "output.path", "cluster.address", "data.storage_options", "data.password"]


@pytest.mark.parametrize("place", PLACES)
@given(template=st.sampled_from(IN_URLS), secret=SECRETS)
def test_settings_that_hold_a_secret_are_refused_and_not_repeated(
    place: str, template: str, secret: str
) -> None:
    document = with_value(place, template.format(secret))
    with pytest.raises(SettingsError, match=f"{place}: .*\n.*by the environment") as refused:
        settings_from(document)
    assert secret not in str(refused.value)
    with pytest.raises(ValidationError) as invalid:  # as Prefect checks a form
        Settings.model_validate(document)
    assert secret not in str(invalid.value)
