"""Finds keys, tokens and passwords in texts, so that they get into no file, log or request."""

import itertools
import re

# A name is split into words, so that --config.tokenizer and --num_tokens are not secrets.
_SECRET_WORDS = {"apikey", "credential", "credentials", "passphrase", "passwd", "password", "pwd", "secret", "token"}
_SECRET_PAIRS = {("access", "key"), ("api", "key"), ("private", "key"), ("secret", "key"), ("signing", "key")}

# The keys of well-known services, with all that follows them without a space.
_SECRET_VALUE = re.compile(
    r"""
    (?: AIza[\w-]{30,}                    # Google API key
    | ya29\.[\w.-]+ | 1//0[\w-]{20,}      # Google OAuth tokens
    | gh[pousr]_\w{20,} | github_pat_\w+ | glpat-[\w-]{20,}
    | (AKIA|ASIA)[A-Z0-9]{16}             # Amazon
    | xox[abprs]-[\w-]{10,}               # Slack
    | hf_[A-Za-z0-9]{20,}                 # Hugging Face
    | sk-[\w-]{20,}                       # several
    | eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.        # JSON web token
    | \w+://[^/\s:@]+:[^/\s@]+@           # a URL with a password
    | [?&](?i:[\w-]*signature|sig|[\w-]*security-token)=[^&\s]{8}  # a signed URL
    )\S*
    | (?: -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY | "?private_key"?\s*: )[\s\S]*
    """,
    re.VERBOSE,
)

_MASK = "***"


def is_secret_name(name: str) -> bool:
    """Whether the name of a flag or variable is that of a secret, such as HF_TOKEN or --dbPassword."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return bool(_SECRET_WORDS & set(words) or _SECRET_PAIRS & set(itertools.pairwise(words)))


def has_secret(text: str) -> bool:
    """Whether a text has the key or token of a well-known service, a URL with a password, or a signed URL."""
    return bool(_SECRET_VALUE.search(text))


def mask(text: str) -> str:
    """Replaces each part of a text that `has_secret` would find."""
    return _SECRET_VALUE.sub(_MASK, text)


def mask_argument(argument: str) -> str:
    """Like `mask`, for an argument of a command: also the value of a flag with the name of a secret."""
    name, equals, _ = argument.partition("=")
    if name.startswith("-") and equals and is_secret_name(name):
        return mask(name) + equals + _MASK
    return mask(argument)
