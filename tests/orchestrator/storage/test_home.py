"""The home of a user: where it is, what it is named, and what is said when it cannot be written."""

import platform
import stat
import tempfile
from pathlib import Path

import pytest

from orchestrator.storage.home import Home, HomeError, find_home

REPOSITORY = Path(__file__).parents[3]
# a Unix socket's path holds 107 bytes; Ray adds /session_<date>_<pid>/sockets/plasma_store
ROOM_FOR_RAY = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


@pytest.fixture(autouse=True)
def no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHESTRATOR_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)


def test_the_flag_wins_over_the_environment_over_the_user_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_home(None).root == tmp_path / "user/.local/share/vision-orchestrator"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert find_home(None).root == tmp_path / "xdg/vision-orchestrator"
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "environment"))
    assert find_home(None).root == tmp_path / "environment"
    assert find_home(str(tmp_path / "flag")).root == tmp_path / "flag"


@pytest.mark.parametrize("variable", ["ORCHESTRATOR_HOME", "XDG_DATA_HOME"])
def test_an_empty_variable_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "")
    assert find_home(None).root == tmp_path / "user/.local/share/vision-orchestrator"


def test_a_home_is_absolute_and_knows_the_user(tmp_path: Path) -> None:
    assert find_home("here").root == tmp_path / "here"
    assert find_home("~/there").root == tmp_path / "user/there"
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert find_home("link").root == tmp_path / "target"


def test_naming_a_home_makes_nothing_and_create_makes_its_folders(tmp_path: Path) -> None:
    home = find_home("a/b")
    assert not (tmp_path / "a").exists()
    assert home.create() is home
    assert home.create() is home
    found = sorted(path.name for path in home.root.iterdir())
    assert found == [".home.lock", "cache", "home.json", "logs", "plans", "store"]
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_a_home_keeps_its_name_when_the_machine_or_the_folder_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dead driver left RUNNING is the home's to settle, in whatever container it is opened
    next."""
    name = Home(tmp_path / "one").create().name
    assert Home(tmp_path / "other").create().name != name
    monkeypatch.setattr("platform.node", lambda: "another-container")
    (tmp_path / "one").rename(tmp_path / "moved")
    assert Home(tmp_path / "moved").create().name == name


def test_a_home_that_an_older_version_has_filled_goes_on_under_its_name(tmp_path: Path) -> None:
    """Its submissions in MLflow carry it."""
    (tmp_path / "store" / "a run").mkdir(parents=True)
    assert Home(tmp_path).create().name == f"{platform.node()}:{tmp_path}"


@pytest.mark.parametrize("way", ["", "inner", "store"])
def test_a_home_that_cannot_be_written_says_what_to_do(tmp_path: Path, way: str) -> None:
    blocked = tmp_path / "home"
    if way == "store":
        blocked.mkdir()
        (blocked / "store").write_text("a file in the way", encoding="utf-8")
    else:
        blocked.write_text("a file in the way", encoding="utf-8")
    home = Home(blocked / "inner" if way == "inner" else blocked)
    with pytest.raises(HomeError) as error:
        home.create()
    assert str(error.value).startswith(f"home {home.root} cannot be written (")
    assert str(error.value).endswith("): give another with --home or ORCHESTRATOR_HOME")
    assert "\n" not in str(error.value)
    assert error.value.status == 2


def test_ray_s_folder_is_short_however_long_the_home_is(tmp_path: Path) -> None:
    long = [Home(tmp_path / ("x" * 200) / f"{n}" / ("y" * 200)) for n in range(2)]
    assert all(len(str(home.ray_temp)) <= ROOM_FOR_RAY for home in long)
    assert long[0].ray_temp != long[1].ray_temp
    assert long[0].ray_temp == Home(long[0].root).ray_temp


def test_ray_s_folder_is_short_however_long_the_temporary_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch-of-a-batch-system" / "job-12345678"
    scratch.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert len(str(Home(tmp_path).ray_temp)) <= ROOM_FOR_RAY


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"name": 5}', '{"name": ""}', "\0" * 40])
def test_a_damaged_identity_is_said_and_never_replaced(tmp_path: Path, damage: str) -> None:
    home = Home(tmp_path).create()
    (tmp_path / "home.json").write_text(damage, "utf-8")
    with pytest.raises(HomeError, match=r"home\.json is damaged: restore it"):
        home.create()
    with pytest.raises(HomeError, match=r"home\.json is damaged"):
        _ = home.name
    assert (tmp_path / "home.json").read_text("utf-8") == damage
