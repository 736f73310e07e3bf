"""Secrets in URLs and texts, masked before anything is printed, logged, recorded or written."""

import re
from typing import Any

MASK = "***"

#: Query parameters that hold a secret, by their last word: `X-Amz-Signature`, `client_secret`, `sslpassword`, `sig`.
_SECRET_NAME = (
    r"[\w.%-]{0,60}?(?:token|secret|password|passwd|passphrase|pwd|signature|credentials?|api[_-]?key|access[_-]?key"
    r"|secret[_-]?key|account[_-]?key|shared[_-]?key|access[_-]?key[_-]?id)"
    r"|sig|key|auth|authorization|pass|jwt|sas|odbc_connect"
)
_IN_QUERY = re.compile(rf"(?P<name>[?&;#](?:amp;)?(?:{_SECRET_NAME})=)(?P<value>[^&;\s\"'<>#)\]}}]+)", re.IGNORECASE)

#: The same outside of a query, for names that mean nothing else: `AWS_SECRET_ACCESS_KEY=...`, `password=...`.
_SETTING = re.compile(
    r"(?P<name>(?<![A-Za-z0-9])(?:[A-Z0-9]{1,30}_){0,6}"
    r"(?:password|passwd|pwd|access_token|session_token|tracking_token|auth_token|hf_token|github_token|client_secret"
    r"|secret_access_key|secret_key|account_key|api_?key|AccountKey|SharedAccessSignature)"
    r"[\"']?=[\"']?)(?P<value>[^\s\"'&;,)\]}]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s+)(?P<value>[A-Za-z0-9+/=._~-]{8,})")
_KNOWN_FORMS = re.compile(
    r"\b(?P<name>AKIA|ASIA|ghp_|gho_|ghs_|github_pat_|hf_|glpat-|dapi)(?P<value>[A-Za-z0-9_-]{16,})"
)

#: `://user:password@` or, in a path of Python's, `:/user:password@`. The password may hold "/", as AWS's keys do,
#: and "@" before the host. A run never crosses into the next URL.
_USER_AND_PASSWORD = re.compile(
    r"(?<=[A-Za-z0-9+.-]{2})(?P<slashes>:/{1,2})(?P<user>[^\s:/@?#]*)"
    r":(?P<value>(?:(?!://)[^\s@])*(?:@(?:(?!://)[^\s@/?#])*)*)@"
)
#: The same without a scheme: `//user:password@host`.
_WITHOUT_SCHEME = re.compile(r"(?<![\w:/.])(?P<start>//[^\s:/@?#]*:)[^\s/@]+@(?=[\w\[])")
#: The form of scp: `user:password@host:path`.
_AS_SCP = re.compile(r"(?<![\w:/.@-])(?P<name>[A-Za-z_][\w.-]{0,40}:)(?P<value>[^\s:/@]+)@(?=[\w.-]+:[\w/~.])")
_PORT = re.compile(r"\d{1,5}(?:[/?#,;\"'<>)\]}|]|$)")
_SCHEME = re.compile(r"[A-Za-z0-9+.-]{1,40}$")
_USER_ALONE = re.compile(r"(?i:(?<=http)|(?<=https))(?P<slashes>:/{1,2})(?P<value>[^\s:/@?#\"']+)@")
_KEYS_AS_USER = ("s3", "s3a", "s3n")


def hide_secrets(text: str) -> str:
    """Return the text with every secret in it as `***`.

    These are: passwords and keys before the host of any URL, the user as well where it is a key (S3) or a token (HTTP
    without a password); tokens, signatures and passwords in query strings; `PASSWORD=...` and its like; `Bearer ...`;
    words in the form of AWS's, GitHub's, GitLab's, Databricks' and Hugging Face's tokens.
    """
    if ":/" in text:
        text = _USER_AND_PASSWORD.sub(_masked_password, text)
        text = _USER_ALONE.sub(rf"\g<slashes>{MASK}@", text)
    if "//" in text:
        text = _WITHOUT_SCHEME.sub(rf"\g<start>{MASK}@", text)
    if "@" in text:
        text = _AS_SCP.sub(rf"\g<name>{MASK}@", text)
    for pattern in (_IN_QUERY, _SETTING, _HEADER, _KNOWN_FORMS):
        text = pattern.sub(rf"\g<name>{MASK}", text)
    return text


def without_secrets(value: Any) -> Any:
    """`hide_secrets` of every text in lists and mappings; other things stay as they are."""
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, (list, tuple)):
        return type(value)(without_secrets(part) for part in value)
    if isinstance(value, dict):
        return {name: without_secrets(part) for name, part in value.items()}
    return value


def holds_secret(text: str) -> bool:
    """Whether `hide_secrets` would change the text."""
    return hide_secrets(text) != text


def _masked_password(match: re.Match[str]) -> str:
    before = _SCHEME.search(match.string, max(0, match.start() - 40), match.start())
    scheme = before.group().lower() if before else ""
    if scheme not in _KEYS_AS_USER and _PORT.match(match["value"]):
        return match.group()  # `http://host:5000/a@b`
    user = MASK if scheme.endswith(_KEYS_AS_USER) and match["user"] else match["user"]
    return f"{match['slashes']}{user}:{MASK}@" if match["value"] else match.group()
