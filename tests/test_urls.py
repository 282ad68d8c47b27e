"""What is shown of a URL: everything but its passwords."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL

from batteryops.errors import SettingsError
from batteryops.settings import load_settings
from batteryops.urls import hidden, masked


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:se%23cret@host/db", "postgresql://user:***@host/db"),
        ("postgresql+psycopg://user:secret@[::1]:5432/db", "postgresql+psycopg://user:***@[::1]:5432/db"),
        ("http://user:secret@host:5000/path", "http://user:***@host:5000/path"),
        ("ftp://user:secret@host/artifacts", "ftp://user:***@host/artifacts"),
        ("postgresql://user@host/db?password=se%23cret&x=1", "postgresql://user@host/db?password=***&x=1"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dsecret", "mssql+pyodbc:///?odbc_connect=***"),
    ],
)  # fmt: skip
def test_only_the_password_is_hidden(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///home/ledger.db",
        "sqlite:////home/of:us@work/ledger.db",
        "file:///home/of:us@work/artifacts",
        "/home/us@work/artifacts",
        "sqlite:foo",
        "http://[bad",
        "http://[::1]:5000",
        "postgresql://user@host:5432/db?sslmode=require",
        "postgresql://user:@host/db",
        "s3://bucket/a:b",
        "",
    ],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert masked(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:se@secret@host/db",
        "postgresql://user:se/secret@host/db",
        "postgresql://user:se?secret@host/db",
        "postgresql://user:se#secret@host/db",
        "postgresql://user:secret",
        "postgresql://user:secret/db",
        "postgresql://user@host:secret/db",
        "postgresql:///user:secret@host/db",
        "postgresql:/user:secret@host/db",
        "postgresql:user:secret@host/db",
        "://user:secret@host/db",
        "user:secret@host",
        "no url with user:secret@host",
        "http://user:secret@[bad",
        "sqlite://user:secret@host/db",
        "postgresql://user:secret@host/db?password=secret",
        "postgresql://user@host/db?PASSWORD=se@secret",
    ],
)
def test_a_malformed_url_does_not_show_its_password_either(url: str) -> None:
    assert "secret" not in masked(url)
    assert "***" in masked(url)


@given(password=st.text(min_size=1), database=st.sampled_from(["db", "", "a/b"]))
def test_whatever_the_password_is_the_url_is_shown_as_if_it_were_three_stars(
    password: str, database: str
) -> None:
    url = URL.create("postgresql", "user", password, "host", 5432, database)
    assert masked(url.render_as_string(hide_password=False)) == url.render_as_string()


def test_a_url_under_a_misspelt_setting_does_not_show_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATTERYOPS_REGISTRY__TRACKING_URL", "postgresql://user:secret@host/db")
    with pytest.raises(
        SettingsError, match="did you mean BATTERYOPS_REGISTRY__TRACKING_URI"
    ) as refused:
        load_settings()
    assert "secret" not in str(refused.value)


def test_a_password_is_hidden_in_what_a_library_says_written_either_way() -> None:
    url = "postgresql://user:se%23cr+et@host/db?sslpassword=p%40ss"
    said = "'se%23cr+et', 'se#cr+et', 'se#cr et', 'p@ss'"
    assert hidden(said, "sqlite:///a.db", url) == "'***', '***', '***', '***'"
