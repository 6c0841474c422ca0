# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to write credentials down, one for each kind of program that reads them.

Private to the collection.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..errors import ProvisioningError
from ..gateway.protocol import File
from ..platform.credentials import Credentials, DynamicKey
from ..platform.services import SERVICES

PUBLIC_MODE = 0o644  # of files without a secret, which every user of the gateway may read

_MQTT = ("mqtt", "lband")  # a plan of L-band alone logs in by MQTT, too, for its keys
_PLAIN_PORT = 1883  # the one port of MQTT without TLS (seen in client code, for CloudLocate)
_KEEPALIVE = 60  # seconds (seen in client code: 10 to 60)
# bytes of user, colon and password; more does not fit into what the programs keep
_MAX_LOGIN_OF_GPSD = 45
_MAX_LOGIN_OF_STR2STR = 255


@dataclass(frozen=True)
class Layout:
    """How the files of a bundle are to look on the gateway. Modes are numbers such as ``0o640``."""

    path: str
    secret_mode: int
    broker_ca: str


@dataclass(frozen=True)
class Format:
    """One way to write credentials down.

    :param deliveries: those of which it needs one, so that it is known before a request what cannot be served.
    :param serves: whether it can serve these credentials.
    :param render: the files it makes of them.
    """

    deliveries: tuple[str, ...]
    serves: Callable[[Credentials], bool]
    render: Callable[[Credentials, Layout], dict[str, File]]


def topics_of(credentials: Credentials) -> list[str]:
    """Return each topic once; the platform also sends several topics joined by ``;`` (seen in client code)."""
    return list(dict.fromkeys(topic for one in credentials.subscriptions for topic in one.path.split(";") if topic))


def _has_pair(credentials: Credentials) -> bool:
    return credentials.certificate is not None and credentials.private_key is not None


def _uses_tls(credentials: Credentials) -> bool:
    return _has_pair(credentials) or credentials.port != _PLAIN_PORT


def _pem(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return the CA of the broker and, if the Thing logs in with a certificate, the pair: as two files, and as one."""
    files = {"ca.crt": File(layout.broker_ca.encode(), PUBLIC_MODE)}
    if credentials.certificate is not None and credentials.private_key is not None:
        certificate, private_key = credentials.certificate.encode(), credentials.private_key.encode()
        files["client.crt"] = File(certificate, PUBLIC_MODE)
        files["client.key"] = File(private_key, layout.secret_mode)
        files["client.pem"] = File(certificate + private_key, layout.secret_mode)
    return files


def _env(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return an environment file that systemd and every shell read alike."""
    return {"credentials.env": _environment(_variables(credentials, layout), "THINGSTREAM_", layout)}


def _env_plain(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return an environment file without quotes, for ``--env-file`` of podman and docker.

    Both take every character after the first ``=`` as it is (docker: its source). Other readers of such files drop
    blanks at the ends of a value.
    """
    lines = []
    for name, value in _variables(credentials, layout).items():
        if value is None:
            continue
        text = str(value)
        if text != text.strip() or not text.isprintable():
            raise ProvisioningError(
                "bad_option",
                f"The format env-plain cannot hold {name.lower()}, which begins or ends with a blank or has a line "
                "break: take env-plain out of formats, and mount credentials.env of the format env.",
            )
        lines.append(f"THINGSTREAM_{name}={text}\n")
    return {"credentials.plain.env": File("".join(lines).encode(), layout.secret_mode)}


def _variables(credentials: Credentials, layout: Layout) -> dict[str, object]:
    """Return what environment files hold, without the prefix of the names; ``None`` for what is not there."""
    current = f"{layout.path}/current"
    has_pair = credentials.certificate is not None
    return {
        "SERVICE": credentials.service,
        "CLIENT_ID": credentials.client_id,
        "HOST": credentials.host,
        "PORT": credentials.port,
        "USERNAME": credentials.username,
        "PASSWORD": credentials.password,
        "CERTIFICATE": f"{current}/client.crt" if has_pair else None,
        "PRIVATE_KEY": f"{current}/client.key" if has_pair else None,
        "CA": f"{current}/ca.crt" if credentials.host else None,
        "TOPICS": " ".join(topics_of(credentials)) or None,
        "KEY_CURRENT": credentials.keys_current.value if credentials.keys_current else None,
        "KEY_NEXT": credentials.keys_next.value if credentials.keys_next else None,
        "NTRIP_HOST": credentials.ntrip_host,
        "NTRIP_PORT": credentials.ntrip_port,
        "NTRIP_TLS_PORT": credentials.ntrip_tls_port,
        "NTRIP_MOUNTPOINT": credentials.ntrip_mountpoint,
        "NTRIP_USERNAME": credentials.ntrip_username,
        "NTRIP_PASSWORD": credentials.ntrip_password,
    }


def _environment(values: Mapping[str, object], prefix: str, layout: Layout) -> File:
    lines = [f"{prefix}{name}={_quoted(str(value))}\n" for name, value in values.items() if value is not None]
    return File("".join(lines).encode(), layout.secret_mode)


def _quoted(value: str) -> str:
    """Return a double-quoted value, with a backslash before the four characters that both systemd and sh unescape."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


# ---- MQTT ----


def _mosquitto(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return a section for ``include_dir`` of mosquitto 2 that makes it a bridge; each message keeps its topic."""
    current = f"{layout.path}/current"
    lines = [
        f"connection thingstream-{credentials.service}",
        f"address {credentials.host}:{credentials.port}",
        f"remote_clientid {credentials.client_id}",
        "bridge_protocol_version mqttv311",
        "cleansession true",
        f"keepalive_interval {_KEEPALIVE}",
        # whether it is connected, for a health check, on the gateway alone; and no bit that only a mosquitto knows
        "notifications_local_only true",
        f"notification_topic $SYS/broker/connection/thingstream-{credentials.service}/state",
        "try_private false",
    ]
    if _uses_tls(credentials):
        lines.append(f"bridge_cafile {current}/ca.crt")
    if _has_pair(credentials):
        lines += [f"bridge_certfile {current}/client.crt", f"bridge_keyfile {current}/client.key"]
    if credentials.username is not None:
        lines += [f"remote_username {credentials.username}", f"remote_password {credentials.password}"]
    if not credentials.subscriptions:
        topics = SERVICES[credentials.service].bridge_topics
        lines += [f"topic {topic.format(client_id=credentials.client_id)} {way} 0" for topic, way in topics]
    lines += [f"topic {topic} in {1 if _is_key_topic(topic) else 0}" for topic in topics_of(credentials)]
    files = {"mosquitto.conf": File("".join(f"{line}\n" for line in lines).encode(), layout.secret_mode)}
    return {**files, **(_pem(credentials, layout) if _uses_tls(credentials) else {})}


def _serves_mosquitto(credentials: Credentials) -> bool:
    """Return whether the format can serve these credentials.

    The configuration of mosquitto can hold neither a topic with a space, nor a user name or password that begins or
    ends with a space.
    """
    login = (credentials.username or "", credentials.password or "")
    return (
        credentials.host is not None
        and not any(" " in topic for topic in topics_of(credentials))
        and all(text == text.strip(" ") for text in login)
    )


def _topics(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return a file with one topic in each line."""
    return {"topics.txt": File("".join(f"{topic}\n" for topic in topics_of(credentials)).encode(), PUBLIC_MODE)}


def _is_key_topic(topic: str) -> bool:
    """Return whether a topic is for dynamic keys: /pp/ubx/0236/ip, /pp/ubx/0236/Lb (seen in client code)."""
    return topic.startswith("/pp/ubx/0236/")


def _is_assistance_topic(topic: str) -> bool:
    return topic.startswith("/pp/ubx/mga")  # seen in client code


def _ucenter(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return the JSON that the portal offers for u-center, and that PyGPSClient reads.

    Every key was seen in client code. The quality of service and the keep-alive time of the original are not public;
    the values here are the ones that clients use.
    """

    def paths(wanted: Callable[[str], bool]) -> list[str]:
        return [one.path for one in credentials.subscriptions if wanted(one.path)]

    content = {
        "MQTT": {
            "Connectivity": {
                "ClientID": credentials.client_id,
                "ServerURI": f"ssl://{credentials.host}:{credentials.port}",
                "KeepAliveInterval": _KEEPALIVE,
                "ClientCredentials": {
                    "Key": _body(credentials.private_key or ""),
                    "Cert": _body(credentials.certificate or ""),
                    "RootCA": _body(layout.broker_ca),
                },
                "SSL": {"Protocol": "TLSv1.2"},
            },
            "Subscriptions": {
                "Key": {"KeyTopics": paths(_is_key_topic), "QoS": 1},
                "AssistNow": {"AssistNowTopics": paths(_is_assistance_topic)},
                "Data": {
                    "DataTopics": paths(lambda path: not (_is_key_topic(path) or _is_assistance_topic(path))),
                    "QoS": 0,
                },
            },
            "dynamickeys": {
                "current": _dynamic_key(credentials.keys_current),
                "next": _dynamic_key(credentials.keys_next),
            },
        }
    }
    return {"ucenter-config.json": File(f"{json.dumps(content, indent=2)}\n".encode(), layout.secret_mode)}


def _body(pem: str) -> str:
    """Return the first block of PEM text without its frame and line ends; consumers put them back."""
    match = re.search(r"-----BEGIN [A-Z ]+-----\n([A-Za-z0-9+/=\n]+)-----END ", pem)
    return match.group(1).replace("\n", "") if match else ""


def _dynamic_key(key: DynamicKey | None) -> dict[str, Any]:
    """Return a dynamic key with times in milliseconds, as the platform sends them."""
    if key is None:
        return {}
    milliseconds = timedelta(milliseconds=1)
    return {
        "duration": round((key.end - key.start) / milliseconds),
        "start": round(key.start.timestamp() * 1000),
        "value": key.value,
    }


def _pygnssutils(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return the portal's files for ``gnssmqttclient``, and an environment file for it and ``gnssntripclient``.

    The files have their names from the portal.
    """
    current = f"{layout.path}/current"
    key = credentials.keys_current
    values: dict[str, object] = {
        "PYGPSCLIENT_USER": credentials.ntrip_username,
        "PYGPSCLIENT_PASSWORD": credentials.ntrip_password,
    }
    files = {}
    if credentials.certificate is not None and credentials.private_key is not None:
        name = f"device-{credentials.client_id}-pp"
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
            raise ProvisioningError(
                "bad_option", "The client ID cannot be part of a file name: take pygnssutils out of formats."
            )
        files[f"{name}-cert.crt"] = File(credentials.certificate.encode(), layout.secret_mode)
        files[f"{name}-key.pem"] = File(credentials.private_key.encode(), layout.secret_mode)
        values |= {
            "MQTTCLIENTID": credentials.client_id,
            "MQTTCRT": f"{current}/{name}-cert.crt",
            "MQTTPEM": f"{current}/{name}-key.pem",
            "MQTTKEY": key.value if key else None,
        }
    return {**files, "pygnssutils.env": _environment(values, "", layout)}


# ---- NTRIP ----


def _gpsd(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return the data source for ``gpsd``. gpsd shows it to every local client: see the documentation."""
    return {"gpsd.url": File(f"{_ntrip_url(credentials)}\n".encode(), layout.secret_mode)}


def _serves_gpsd(credentials: Credentials) -> bool:
    return _fits_url(credentials, _MAX_LOGIN_OF_GPSD)


def _str2str(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """Return the arguments for ``str2str`` of RTKLIB, quoted for ``sh`` and ``xargs``."""
    words: Sequence[str] = ("-in", _ntrip_url(credentials))
    return {"str2str.args": File(f"{shlex.join(words)}\n".encode(), layout.secret_mode)}


def _serves_str2str(credentials: Credentials) -> bool:
    """Return whether the format can serve these credentials; str2str does not support IPv6."""
    return _fits_url(credentials, _MAX_LOGIN_OF_STR2STR) and ":" not in (credentials.ntrip_host or "")


def _fits_url(credentials: Credentials, longest_login: int) -> bool:
    """Return whether programs split ``_ntrip_url`` where it was joined, and can keep the login.

    They take the login up to the last ``@``, and the user up to ``:``.
    """
    login = f"{credentials.ntrip_username}:{credentials.ntrip_password}"
    return (
        _has_ntrip(credentials)
        and ":" not in (credentials.ntrip_username or "")
        and not set(credentials.ntrip_mountpoint or "") & set("/:@")
        and len(login.encode()) <= longest_login
    )


def _ntrip_url(credentials: Credentials) -> str:
    """Return the URL with every character as it is.

    Neither gpsd (3.22 to 3.25) nor RTKLIB (2.4.3) decodes percent-encoding.
    """
    host = f"[{credentials.ntrip_host}]" if ":" in (credentials.ntrip_host or "") else credentials.ntrip_host
    login = f"{credentials.ntrip_username}:{credentials.ntrip_password}"
    return f"ntrip://{login}@{host}:{credentials.ntrip_port}/{credentials.ntrip_mountpoint}"


def _has_ntrip(credentials: Credentials) -> bool:
    return "ntrip" in credentials.delivery


FORMATS: Mapping[str, Format] = {
    "pem": Format(_MQTT, lambda credentials: credentials.host is not None, _pem),
    "env": Format((*_MQTT, "ntrip"), lambda credentials: bool(credentials.delivery), _env),
    "env-plain": Format((*_MQTT, "ntrip"), lambda credentials: bool(credentials.delivery), _env_plain),
    "mosquitto": Format(_MQTT, _serves_mosquitto, _mosquitto),
    "topics": Format(_MQTT, lambda credentials: bool(credentials.subscriptions), _topics),
    "ucenter": Format(_MQTT, lambda credentials: credentials.host is not None and _has_pair(credentials), _ucenter),
    "pygnssutils": Format(
        (*_MQTT, "ntrip"), lambda credentials: _has_pair(credentials) or _has_ntrip(credentials), _pygnssutils
    ),
    "gpsd": Format(("ntrip",), _serves_gpsd, _gpsd),
    "str2str": Format(("ntrip",), _serves_str2str, _str2str),
}
DEFAULT_FORMATS = ("pem", "env")
PUBLIC_FILES = ("client.crt", "ca.crt", "topics.txt")


def check_formats(formats: Sequence[str] | None, deliveries: Sequence[str]) -> None:
    """Refuse, before a request, a format that none of these deliveries can serve.

    :raises ProvisioningError: ``bad_option``.
    """
    for name in formats or ():
        if not set(FORMATS[name].deliveries) & set(deliveries):
            raise ProvisioningError(
                "bad_option",
                f"The format {name} needs {' or '.join(FORMATS[name].deliveries)}, but what is asked for is delivered "
                f"by {' or '.join(deliveries)}: take it out of formats.",
            )
