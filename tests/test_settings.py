import msgspec
import pytest

from lakebed.errors import InvalidSettings
from lakebed.settings import FILE_NAME, Settings


def load(root=None, environ=None, **overrides):
    return Settings.load(root, environ=environ or {}, **overrides)


def test_defaults_apply_without_any_source(tmp_path):
    """No file, no variables, no arguments: the defaults, also when the root has no file."""
    assert load() == load(tmp_path) == Settings()


def test_arguments_override_the_environment_and_the_file(tmp_path):
    """File < environment < arguments, each only for the settings that it names."""
    (tmp_path / FILE_NAME).write_text('tail_bytes = 1\npending_events = 1\nretention_s = 1\ndurability = "os"')
    environ = {"LAKEBED_PENDING_EVENTS": "2", "LAKEBED_RETENTION_S": "2.5", "PENDING_EVENTS": "9"}
    settings = load(tmp_path, environ, retention_s=3)
    assert (settings.tail_bytes, settings.pending_events, settings.retention_s, settings.durability) == (1, 2, 3, "os")
    assert settings.segment_bytes == Settings().segment_bytes


def test_the_catalog_may_come_from_every_source(tmp_path):
    """The catalog's properties may be a TOML table, JSON in the environment, or a dict."""
    (tmp_path / FILE_NAME).write_text('[catalog]\nuri = "file"')
    assert load(tmp_path).catalog == {"uri": "file"}
    assert load(tmp_path, {"LAKEBED_CATALOG": '{"uri": "env"}'}).catalog == {"uri": "env"}
    assert load(tmp_path, catalog={"uri": "argument"}).catalog == {"uri": "argument"}


def test_variables_of_other_parts_are_ignored():
    """LAKEBED_ variables that are not settings belong to the server or the CLI: they are no error."""
    assert load(environ={"LAKEBED_PORT": "80", "LAKEBED_": "", "LAKEBED_QUERY_THREADS": "3"}).query_threads == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tail_byte = 1", "tail_byte"),
        ("tail_bytes = 0", "tail_bytes"),
        ('tail_bytes = "1"', "tail_bytes"),
        ("tail_bytes = ", "cannot be read"),
        ('durability = "none"', "durability"),
    ],
)
def test_an_error_in_the_file_names_the_file(tmp_path, text, message):
    """An unknown name, a value out of range, the wrong type or bad TOML: InvalidSettings names file and setting."""
    path = tmp_path / FILE_NAME
    path.write_text(text)
    with pytest.raises(InvalidSettings) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_undecodable_file_is_an_error(tmp_path):
    """Bytes that are no UTF-8 are InvalidSettings too."""
    (tmp_path / FILE_NAME).write_bytes(b"\xff")
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    "environ", [{"LAKEBED_TAIL_BYTES": "many"}, {"LAKEBED_TAIL_BYTES": "-1"}, {"LAKEBED_CATALOG": "{no json"}]
)
def test_an_error_in_a_variable_names_the_environment(environ):
    """A variable that does not convert or is out of range says that it came from the environment."""
    with pytest.raises(InvalidSettings, match="environment"):
        load(environ=environ)


@pytest.mark.parametrize(
    "overrides",
    [{"tail_byte": 1}, {"tail_bytes": 0}, {"tail_bytes": "5"}, {"dedupe_max_ids": -1}, {"segment_age_s": 0}],
)
def test_an_invalid_argument_is_named(overrides):
    """Arguments are strict: unknown names, wrong types and values out of range are InvalidSettings with a hint."""
    with pytest.raises(InvalidSettings, match=r"arguments.*Known settings: durability"):
        load(**overrides)


def test_settings_are_frozen_and_each_is_documented():
    """A setting cannot change after it was read, and every one is described in the docstring."""
    with pytest.raises(AttributeError):
        Settings().tail_bytes = 1
    described = Settings.__doc__
    assert [name for name in Settings.__struct_fields__ if f"        {name}: " not in described] == []
    assert msgspec.structs.replace(Settings(), tail_bytes=5).tail_bytes == 5
