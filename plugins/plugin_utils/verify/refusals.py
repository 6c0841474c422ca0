# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn the refusals of an NTRIP caster into errors: a code, the cause, and the remedy.

No error contains data of the caster. Statuses and texts are those that casters have sent to public clients (seen in
client code and in reports); other ones are reported by their status.

Private to the collection.
"""

from __future__ import annotations

import re

from ..errors import ProvisioningError
from .connection import Server
from .response import Head

_WRONG_LOGIN = re.compile(rb"passw|user|login|credential|unauthori[sz]ed|authenticat|authori[sz]ation")
_IN_USE = re.compile(rb"already|in use|too many|max|limit|another|duplicate|concurrent|simultaneous")
_POSITION = re.compile(rb"gga|nmea|position|location")
_TLS_WANTED = re.compile(rb"https port|ssl-enabled|http request was sent to|speaking plain http")
_SOURCE_TABLE = re.compile(rb"^(?:str|cas|net);|sourcetable", re.M)
_ADDRESS = "Check host and port of the credentials, and whether a proxy or a firewall is in between."
_TLS_ADVICE = (
    "Set the port with TLS as ntrip_tls_port in field_map, for example with the expression `2102`, which clients use "
    "for PointPerfect."
)
_MOUNT_POINT_ADVICE = "Compare it with the plan of the Thing in the portal; upper and lower case matter."
_IN_USE_ADVICE = (
    "The login is wrong, or it is in use: many casters allow one connection for each login. If no consumer is "
    "connected, check the Thing in the portal, and renew the credentials with force."
)


def refusal(server: Server, head: Head, body: bytes, mountpoint: str, *, in_use: bool) -> ProvisioningError:
    """Return the error for a response whose status is not that of a stream.

    :param body: as far as it has arrived.
    :param in_use: whether a consumer may be connected with the same login, so that a refusal has two possible reasons.
    """
    status, line = head.status, head.line
    place = f"the mount point {mountpoint}"
    if head.protocol == "ERROR":
        return _error_line(server, line, place, in_use=in_use)
    if head.protocol == "SOURCETABLE":
        return source_table(server, mountpoint, status)
    number = f" (HTTP {status})"
    if status == 401 and b"digest" in head.header(b"www-authenticate") and b"basic" not in head.headers:
        return ProvisioningError(
            "bad_response",
            f"The {server} wants another kind of login (Digest) than NTRIP clients use. {_ADDRESS}",
            status,
        )
    if status == 401:
        return _login_refused(server, place, in_use=in_use, status=status)
    if status == 403:
        reason = f"does not allow this login, or this address of the controller, to use {place}{number}"
        if in_use:
            return ProvisioningError("refused_or_in_use", f"The {server} {reason}. {_IN_USE_ADVICE}", status)
        return ProvisioningError(
            "credentials_refused", f"The {server} {reason}: check the Thing and its plan in the portal.", status
        )
    if status == 409:
        return ProvisioningError(
            "refused_or_in_use", f"The {server} reports a conflict for {place}{number}. {_IN_USE_ADVICE}", status
        )
    code, text = _by_status(status, place, body)
    return ProvisioningError(code, f"The {server} {text}", status)


def _by_status(status: int | None, place: str, body: bytes) -> tuple[str, str]:
    """Return the code and what the caster does, for a status that does not concern the login."""
    number = f" (HTTP {status})"
    if status == 402:
        return "no_plan", f"wants to be paid for {place}{number}: check the plan of the Thing in the portal."
    if status in (404, 410):
        return "refused", f"does not know {place}{number}. {_MOUNT_POINT_ADVICE}"
    if status == 407:
        return "proxy_refused", f"is behind a proxy that wants a login{number}: connect without a proxy. {_ADDRESS}"
    if status == 426 or (status in (400, 497) and _TLS_WANTED.search(body.lower())):
        return "tls", f"wants TLS on this port{number}. {_TLS_ADVICE}"
    if status == 408:
        return "timeout", f"did not receive the request in time{number}: run again."
    if status == 429:
        return "rate_limited", f"received too many requests{number}: reduce forks, and run again later."
    if status is not None and 300 <= status < 400:
        return "bad_response", f"sends the client to another address{number}, which is not followed. {_ADDRESS}"
    if status is not None and 400 <= status < 500:
        return "refused", f"refuses {place}{number}. {_MOUNT_POINT_ADVICE}"
    if status is not None and 500 <= status < 600:
        return "server_error", f"has a problem{number}: run again later."
    return "bad_response", f"sends a response that is not NTRIP{number}. {_ADDRESS}"


def _error_line(server: Server, line: bytes, place: str, *, in_use: bool) -> ProvisioningError:
    """Return the error for a line such as ``ERROR - Bad Password``, as casters of NTRIP version 1 send it."""
    if _IN_USE.search(line):
        return ProvisioningError(
            "refused_or_in_use", f"The {server} refuses a further login for {place}. {_IN_USE_ADVICE}"
        )
    if _WRONG_LOGIN.search(line):
        return _login_refused(server, place, in_use=in_use, status=None)
    if _POSITION.search(line):
        return ProvisioningError("refused", f"The {server} does not accept {place} without a position: set position.")
    return ProvisioningError("refused", f"The {server} refuses {place}. {_MOUNT_POINT_ADVICE}")


def _login_refused(server: Server, place: str, *, in_use: bool, status: int | None) -> ProvisioningError:
    reason = f"The {server} does not accept user name and password for {place}"
    if in_use:
        return ProvisioningError("refused_or_in_use", f"{reason}. {_IN_USE_ADVICE}", status)
    return ProvisioningError(
        "credentials_refused",
        f"{reason}: check the Thing in the portal, and renew the credentials with force. Some casters also send this "
        "while another client is connected with the same login.",
        status,
    )


def source_table(server: Server, mountpoint: str, status: int | None) -> ProvisioningError:
    """Return the error for a list of mount points in place of a stream."""
    return ProvisioningError(
        "refused",
        f"The {server} sends its source table, because it does not know the mount point {mountpoint}. "
        f"{_MOUNT_POINT_ADVICE}",
        status,
    )


def not_a_caster(server: Server, received: bytes) -> ProvisioningError:
    """Return the error for bytes that no caster sends first."""
    begin = received.lstrip(b"\r\n").upper()
    if begin.startswith(b"\x15\x03"):
        return ProvisioningError("tls", f"The {server} wants TLS on this port. {_TLS_ADVICE}")
    known = next((name for name in ("HTTP/2", "RTSP", "SSH") if begin.startswith(name.encode())), None)
    spoken = f"speaks {known} and not NTRIP" if known else "sends a response that is not NTRIP"
    return ProvisioningError("bad_response", f"The {server} {spoken}. {_ADDRESS}")


def page_problem(
    server: Server, head: Head, body: bytes, mountpoint: str, *, in_use: bool, ended: bool
) -> ProvisioningError | None:
    """Return the error for a response with status 200 that is a document and no stream, or ``None`` if it may be one.

    :param body: as far as it has arrived.
    :param ended: whether nothing more will arrive in time.
    """
    kind = head.header(b"content-type").partition(b";")[0].strip()
    text = body[:4096].strip(b"\xef\xbb\xbf\r\n\t ").lower()
    if kind == b"gnss/sourcetable":
        return source_table(server, mountpoint, head.status)
    is_page = kind in (b"text/html", b"application/xhtml+xml", b"application/json", b"application/xml", b"text/xml")
    if not is_page and not (_is_text(text) and (ended or len(text) >= 16)):
        return None
    if _SOURCE_TABLE.search(text):
        return source_table(server, mountpoint, head.status)
    if text.startswith(b"error"):
        return _error_line(server, text.partition(b"\n")[0], f"the mount point {mountpoint}", in_use=in_use)
    if b"html" in kind or text.startswith(b"<"):
        found = "a web page, as a proxy or a portal does,"
    elif b"json" in kind or text.startswith((b"{", b"[")):
        found = "JSON"
    else:
        found = "text"
    return ProvisioningError(
        "bad_response",
        f"The {server} accepted the request, but sends {found} and no corrections. {_ADDRESS} If they are right, check "
        "the Thing and its plan in the portal.",
        head.status,
    )


def _is_text(data: bytes) -> bool:
    return re.fullmatch(rb"[\t\n\r -~\x80-\xff]*", data) is not None and re.search(rb"[a-z]", data) is not None
