"""The private configuration of Orthanc: safe defaults, own folders, nothing readable by others."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from foramen.kernel.settings import Settings
from foramen.supervisor import orthanc_config


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in orthanc_config.PLUGINS:
        (plugins / name).touch()
    monkeypatch.setattr(orthanc_config, "PLUGIN_FOLDERS", (plugins,))
    return Settings(home=tmp_path / "home", orthanc_http_port=1234, dicom_port=2345, stable_study_s=7)


def test_template_and_settings_are_merged(settings: Settings, tmp_path: Path):
    path = orthanc_config.write_orthanc_config(settings, tmp_path / "orthanc")
    config = json.loads(path.read_text())
    assert (config["HttpPort"], config["DicomPort"], config["StableAge"]) == (1234, 2345, 7)
    assert config["StorageDirectory"] == str(tmp_path / "orthanc" / "storage")
    assert config["TcpNoDelay"] is True
    assert config["StorageCompression"] is config["OverwriteInstances"] is config["RemoteAccessAllowed"] is False
    assert config["AuthenticationEnabled"] is True
    assert [config[f"DicomAlwaysAllow{name}"] for name in ("Store", "Find", "Get", "Move")] == [
        True,
        False,
        False,
        False,
    ]
    (password,) = config["RegisteredUsers"].values()
    assert len(password) >= 32
    assert not any("gdcm" in plugin.lower() for plugin in config["Plugins"])
    assert Path(config["PythonScript"]).is_file()


def test_nobody_else_may_read_it_and_a_repeat_keeps_the_password(settings: Settings, tmp_path: Path):
    path = orthanc_config.write_orthanc_config(settings, tmp_path / "orthanc")
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert orthanc_config.write_orthanc_config(settings, tmp_path / "orthanc").read_text() == first


def test_a_missing_plug_in_is_named(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(orthanc_config, "PLUGIN_FOLDERS", (tmp_path,))
    with pytest.raises(orthanc_config.OrthancPluginMissingError, match=r"libOrthancDicomWeb\.so"):
        orthanc_config.write_orthanc_config(settings, tmp_path / "orthanc")
