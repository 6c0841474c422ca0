# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificate authorities are trusted: the ones of an option, of the usual variables, or of ``requests``.

Private to the collection.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from ..errors import ProvisioningError
from .exchange import Endpoint

try:
    import requests.utils
except ImportError as error:
    REQUESTS_MISSING: ImportError | None = error
    LIBRARY_CA_BUNDLE = ""
else:
    REQUESTS_MISSING = None
    LIBRARY_CA_BUNDLE = requests.utils.DEFAULT_CA_BUNDLE_PATH

CA_PATH_VARIABLE = "THINGSTREAM_CA_PATH"  # gives ca_path where the option is not set
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # that requests itself honors, in its order
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # how OpenSSL finds a certificate in a directory


@dataclass(frozen=True)
class CaBundle:
    """Trusted CA certificates.

    :param origin: the option or variable that names them.
    :param path: a file of PEM certificates, or a directory that ``openssl rehash`` has prepared.
    """

    origin: str
    path: str

    def __str__(self) -> str:
        return f"{self.origin} ({self.path})"


def _default_bundle() -> CaBundle:
    for variable in _CA_VARIABLES:
        if path := os.environ.get(variable):
            return CaBundle(variable, path)
    return CaBundle("the CA bundle of the Python package requests", LIBRARY_CA_BUNDLE)


DEFAULT_CA_BUNDLE = _default_bundle()


def bundle_of(endpoint: Endpoint) -> CaBundle:
    """Return the CA certificates that an endpoint trusts, whether or not they can be read."""
    if not endpoint.ca_path:
        return DEFAULT_CA_BUNDLE
    from_variable = os.environ.get(CA_PATH_VARIABLE) == endpoint.ca_path
    return named(CA_PATH_VARIABLE if from_variable else "ca_path", endpoint.ca_path)


def named(option: str, path: str) -> CaBundle:
    """Return the CA certificates at the path that an option or, if the path is the default one, a variable gives."""
    return DEFAULT_CA_BUNDLE if path == DEFAULT_CA_BUNDLE.path else CaBundle(option, path)


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Return the TLS context for an endpoint.

    :raises ProvisioningError: ``bad_option`` if its CA certificates cannot be used.
    """
    if not endpoint.validate_certs:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if not endpoint.ca_path and _DEFAULT_CONTEXT is not None:
        return _DEFAULT_CONTEXT
    return load(bundle_of(endpoint))


def load(bundle: CaBundle) -> ssl.SSLContext:
    """Return a TLS context that trusts these CA certificates and no others.

    :raises ProvisioningError: ``bad_option``, with what to change.
    """
    problem = None if os.path.isfile(bundle.path) else _problem_of(bundle.path)
    if problem is None:
        try:
            if os.path.isdir(bundle.path):
                return ssl.create_default_context(capath=bundle.path)
            return ssl.create_default_context(cafile=bundle.path)
        except (OSError, ValueError):
            problem = _problem_of(bundle.path) or "OpenSSL cannot read a certificate in it"
    raise ProvisioningError("bad_option", f"Cannot use {bundle} on the controller: {problem}.")


def _problem_of(path: str) -> str | None:
    """Return why CA certificates cannot be read from a path, and the remedy; ``None`` if no reason was found."""
    file = Path(path)
    try:
        if file.is_dir():
            if any(_HASHED_NAME.fullmatch(entry.name) and entry.exists() for entry in file.iterdir()):
                return None
            return "no file in this directory has a name by which OpenSSL finds it; run openssl rehash there"
        if file.exists() and not file.is_file():
            return "this is no file; name a file of PEM certificates"
        content = file.read_bytes()
    except FileNotFoundError:
        return "there is no such file; correct the path"
    except PermissionError:
        return "the user that runs Ansible may not read it; change its mode"
    except (OSError, ValueError):
        return "the path cannot be read"
    if not content.strip():
        return "the file is empty"
    if re.search(rb"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----", content):
        return None
    if content[:1] == b"\x30":  # how ASN.1 begins
        return "the file is in DER; convert it to PEM with openssl x509 -inform der"
    return "the file contains no certificate in PEM"


# Built when the plugin is imported, which Ansible does before it forks: reading the CA bundle costs ten times more
# than everything else of a request, and every worker process inherits the result.
_DEFAULT_CONTEXT: ssl.SSLContext | None = None
if REQUESTS_MISSING is None:
    with contextlib.suppress(ProvisioningError):  # reported by the request that needs it
        _DEFAULT_CONTEXT = load(DEFAULT_CA_BUNDLE)
