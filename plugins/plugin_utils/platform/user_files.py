# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that people give: turn their bytes into text, or name the kind of file that it is instead.

Private to the collection.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

from ..errors import ProvisioningError

MAX_USER_FILE = 1024 * 1024  # bytes; a u-center file has less than ten thousand

_UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_UTF_16_WITHOUT_BOM = re.compile(rb"(?:[\t\r\n -~]\x00){4}|(?:\x00[\t\r\n -~]){4}")
# DER: a SEQUENCE that begins with the INTEGER 3, the version of PKCS#12
_PKCS12 = re.compile(rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...)\x02\x01\x03", re.DOTALL)
_BINARY_KINDS = (
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), "a ZIP archive: extract the file from it"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive: extract the file from it"),
    (re.compile(rb"BZh[1-9]|\xfd7zXZ\x00|7z\xbc\xaf|Rar!"), "an archive: extract the file from it"),
    (re.compile(rb"%PDF-"), "a PDF document: download the file from the portal again"),
    (
        _PKCS12,
        "a PKCS#12 file: extract certificate and key from it with openssl pkcs12 -nodes, and use the result for both "
        "certificate_path and private_key_path",
    ),
    (re.compile(rb"\xfe\xed\xfe\xed"), "a Java key store: export certificate and key from it in PEM"),
)
_TEXT_KINDS = (
    (
        re.compile(r"<(?:!doctype|html|head|body|script)\b", re.IGNORECASE),
        "an HTML page, such as a login page: log in to the portal and download the file again",
    ),
    (re.compile(r"<\?xml|<Error"), "an XML document: download the file from the portal again"),
    (re.compile(r"\$ANSIBLE_VAULT;"), "encrypted with Ansible Vault, but its first bytes are not $ANSIBLE_VAULT: "
                                      "remove blanks or a byte order mark at its beginning"),
    (re.compile(r"version https://git-lfs"), "a pointer of Git LFS: run git lfs pull"),
)  # fmt: skip


@dataclass(frozen=True)
class UserFile:
    """A file that the user gave.

    :param name: the option and the path or key, as messages call it.
    """

    name: str
    content: bytes = field(repr=False)


def refuse(name: str, problem: str, code: str = "bad_option") -> ProvisioningError:
    """Return the error for something a person gave; ``problem`` ends the sentence and shows no content."""
    return ProvisioningError(code, f"{name} {problem}.")


def text_of(file: UserFile) -> str:
    """Return the text of a file, without a byte order mark.

    :raises ProvisioningError: ``bad_option`` if it is empty, binary, in another encoding than UTF-8, or another kind of
        file, which the message names.
    """
    content = file.content
    if not content.strip(b"\0 \t\r\n" + codecs.BOM_UTF8):
        raise refuse(file.name, "is empty")
    if len(content) > MAX_USER_FILE:
        raise refuse(file.name, f"has more than {MAX_USER_FILE // 1024} KiB: it is another kind of file")
    for pattern, kind in _BINARY_KINDS:
        if pattern.match(content):
            raise refuse(file.name, f"is {kind}")
    if content.startswith(_UTF_16_OR_32) or _UTF_16_WITHOUT_BOM.match(content):
        raise refuse(file.name, "is text in UTF-16 or UTF-32: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise refuse(file.name, "is binary, or text in another encoding than UTF-8") from None
    if "\0" in text:
        raise refuse(file.name, "is binary")
    for text_pattern, kind in _TEXT_KINDS:
        if text_pattern.match(text.lstrip()):
            raise refuse(file.name, f"is {kind}")
    return text
