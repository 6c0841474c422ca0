# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Understand the token and the address of the API as people paste them from the portal.

Private to the collection.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ..errors import ProvisioningError
from .services import SERVICES, Service

# Seen in client code: a lower-case UUID; other clients refuse every other form as well.
_TOKEN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# compiled once for all hosts, before Ansible forks its workers
_BLANK = re.compile(r"\s")
_SLASHES = re.compile("/{2,}")
_ENDPOINT = re.compile("/ztp(/|$)")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|[0-9a-f:]+")  # names in ASCII; addresses of both kinds
_QUOTES = "'\"`\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"


def token_of(value: str) -> str | None:
    """Return the token without the blanks, line breaks, quotes and upper case of the text that holds it.

    :returns: ``None`` if there is none.
    :raises ProvisioningError: ``token_invalid``, without the value.
    """
    text = _stripped(value).lower()
    if text and not _TOKEN.fullmatch(text):
        raise ProvisioningError(
            "token_invalid",
            f"The token has {len(text)} characters and is not a UUID, such as 01234567-89ab-cdef-0123-456789abcdef. "
            "Copy the token of the device profile from the portal again.",
        )
    return text or None


def api_url_of(value: str, service: Service) -> str:
    """Return the address without the path of the service, which the portal shows with it.

    :param value: with or without ``https://``, the path of the service, blanks and quotes.
    :raises ProvisioningError: ``bad_option``.
    """
    text = _stripped(value)
    if "://" not in text:
        text = f"https://{text.lstrip('/')}"
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ProvisioningError("bad_option", "api_url is not a URL, such as https://api.thingstream.io.") from None
    if parts.username is not None:
        raise ProvisioningError("bad_option", "api_url must not contain a user name or a password: remove them.")
    if not host or not _HOST.fullmatch(host) or _BLANK.search(text):
        raise ProvisioningError("bad_option", "api_url is not a URL, such as https://api.thingstream.io.")
    shown = f"{parts.scheme}://{parts.netloc}{parts.path}"  # a query may hold the token
    path = _SLASHES.sub("/", parts.path).rstrip("/").removesuffix(service.path)
    other = next((one.name for one in SERVICES.values() if path.endswith(one.path)), None)
    if other is not None:
        raise ProvisioningError(
            "bad_option",
            f"api_url: {shown!r} is the endpoint of the service {other}, but service is {service.name}. Correct one of "
            "them.",
        )
    if _ENDPOINT.search(path):
        raise ProvisioningError(
            "bad_option",
            f"api_url: {shown!r} is not an endpoint of the service {service.name}. Use its address up to, and without, "
            "/ztp.",
        )
    return parts._replace(path=path).geturl()


def _stripped(value: str) -> str:
    """Return a text without the byte order mark, blanks and quotation marks around it."""
    return value.strip("\ufeff\u200b").strip().strip(_QUOTES).strip()
