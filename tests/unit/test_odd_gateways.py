# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else does at a path, on purpose or not: an editor, another run, a login in another language."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import Consumers
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from ansible_collections.thingstream.ztp.tests.unit.support import cloudlocate


def test_a_trial_whose_link_is_gone_returns_to_what_was_in_use(thrice: Rig) -> None:
    """Another run that took this one for dead has removed it."""
    consumers = Consumers(health_command=f"rm -f {thrice.path}/.trial; false", health_timeout=1)
    with pytest.raises(ProvisioningError) as caught:
        thrice.present(cloudlocate(clientId="device:4"), force=True, consumers=consumers)
    assert caught.value.code == "health_check_failed"
    assert thrice.record["client_id"] == "device:3"


def test_a_roll_back_keeps_the_way_back_whatever_else_is_kept(thrice: Rig) -> None:
    assert thrice.roll_back("000001", keep=0).generation == "000001"
    assert thrice.roll_back("000003").generation == "000003"
    assert thrice.record["client_id"] == "device:3"


@pytest.mark.parametrize("end", ["\n", "\n\n\n"])
def test_blank_lines_at_the_end_of_the_history(thrice: Rig, end: str) -> None:
    with (thrice.path / "history.json").open("a") as stream:
        stream.write(end)
    assert thrice.present(cloudlocate(clientId="device:4"), force=True).action == "renewed"
    assert thrice.retired_ids == ["device:1", "device:2", "device:3"]


def test_a_login_in_another_language(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What programs complain of is read, so it has to be in the one language that is known."""
    told = tmp_path / "told"
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "tar"
    fake.write_text(f'#!/bin/sh\necho "$LC_ALL" >{told}\nexec {shutil.which("tar")} "$@"\n')
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    rig.service = "cloudlocate"
    rig.present(cloudlocate())
    assert told.read_text() == "C\n"
