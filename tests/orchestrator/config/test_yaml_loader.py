"""YAML is safe, errors name their line, and `--set` changes one value of one place."""

import copy
import math
import os
from pathlib import Path

import pytest

from orchestrator.config.yaml_loader import YamlError, apply_setting, parse, read_mapping, values_at


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' is written twice in the same mapping"),
        ("a:\n  x: 1\n  y: 2\n  x: 1\n", "line 4: key 'x' is written twice in the same mapping"),
        ("a: {x: 1, x: 1}\n", "line 1: key 'x' is written twice in the same mapping"),
        ("a: 1\nb: !foo 2\n", "line 2: unknown tag '!foo': use plain values"),
        ("a: 1\n? [1, 2]\n: 3\n", "line 2: a key must be a plain value, not a list or mapping"),
        ("a: 1\n? {b: 1}\n: 3\n", "line 2: a key must be a plain value, not a list or mapping"),
        ("", "is empty: a mapping of keys is needed"),
        ("# nothing but this\n", "is empty: a mapping of keys is needed"),
        ("- a\n- b\n", "must be a mapping of keys at its top level, not a list"),
        ("hello\n", "must be a mapping of keys at its top level, not 'hello'"),
        ("7\n", "must be a mapping of keys at its top level, not 7"),
        (
            "a: 1\nb: [1, 2",
            "line 2, column 9: expected ',' or ']', but got '<stream end>' (not valid YAML)",
        ),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here (not valid YAML)"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: but found another document (not valid YAML)"),
        ("a: *b\n", "line 1, column 4: found undefined alias 'b' (not valid YAML)"),
        (
            "a: &a [*a]\n",
            "line 1, column 4: found unconstructable recursive node (not valid YAML)",
        ),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(text: str, line: str) -> None:
    with pytest.raises(YamlError) as error:
        parse(text)
    assert str(error.value) == line


def test_a_character_that_yaml_forbids_is_named() -> None:
    with pytest.raises(YamlError, match="not valid YAML: unacceptable character #x0000"):
        parse("a: \x00")


@pytest.mark.parametrize("call", ["os.system", "subprocess.check_output"])
def test_a_tag_never_runs_anything(tmp_path: Path, call: str) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(YamlError, match=f"line 2: unknown tag '.*python/object/apply:{call}'"):
        parse(f"a: 1\nb: !!python/object/apply:{call} [[touch, {trap}]]\n")
    with pytest.raises(YamlError, match="unknown tag"):
        apply_setting({}, f"a=!!python/object/apply:os.system ['touch {trap}']")
    assert not trap.exists()


TAGS = "bool int float null str timestamp binary omap pairs set seq map merge value python/name:os"


@pytest.mark.parametrize("value", ["", "x", "''", "~", "[1]", "{a: 1}", "'='", "0x", "9" * 101])
@pytest.mark.parametrize("tag", [f"!!{name}" for name in TAGS.split()] + ["!", "!x", "!<tag:x>"])
def test_a_value_that_does_not_fit_its_tag_is_an_error_of_its_line(tag: str, value: str) -> None:
    try:
        read = parse(f"a: 1\nb: {tag} {value}\n")["b"]
    except YamlError as error:
        assert str(error).startswith("line 2"), error
    else:
        assert isinstance(read, str | int | float | bool | list | dict | None)


@pytest.mark.parametrize("value", ["!!int abc", "!!float abc", "!!map [1]", "!!bool x", "!!int ''"])
def test_a_value_that_is_not_of_its_own_kind_is_an_error_of_its_line(value: str) -> None:
    with pytest.raises(YamlError, match="line 2"):
        parse(f"a: 1\nb: {value}\n")


@pytest.mark.parametrize(
    ("text", "number"),
    [("010", 10), ("0013", 13), ("08", 8), ("-07", -7), ("0o17", 15), ("0x1F", 31), ("+3", 3)],
)
def test_integers_are_those_of_yaml_1_2(text: str, number: int) -> None:
    value = parse(f"a: {text}")["a"]
    assert type(value) is int
    assert value == number
    assert parse(f"a: !!int {text}")["a"] == number


@pytest.mark.parametrize("text", ["1:30", "1:30.5", "1_000", "0b11", "2024-01-02", "0x_", "="])
def test_what_only_yaml_1_1_takes_for_a_number_or_a_date_is_a_word(text: str) -> None:
    assert parse(f"a: {text}")["a"] == text


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("no", "true or false"), ("On", "true or false"), ("YES", "true or false"),
        ("null", "nothing"), ("~", "nothing"), ("0013", "a number"), ("1e3", "a number"),
    ],
)  # fmt: skip
def test_a_key_that_is_no_text_says_how_to_quote_it(key: str, kind: str) -> None:
    with pytest.raises(YamlError) as error:
        parse(f"a:\n  {key}: 1\n")
    line = f'line 2: key `{key}` is read as {kind}, and text is needed: write "{key}"'
    assert str(error.value) == line
    assert parse(f'"{key}": 1') == {key: 1}


def test_the_key_on_is_a_word_as_documented_and_its_value_is_not() -> None:
    assert parse("notify:\n  on: [done]\n") == {"notify": {"on": ["done"]}}
    assert parse("notify: {on: [done]}") == {"notify": {"on": ["done"]}}
    assert parse("a: on") == {"a": True}


@pytest.mark.parametrize(
    "text", [r"\ud800", r"\udfff", r"\e[31m", r"\0", r"\a", r"\x9b", r"\u202e"]
)
def test_a_text_holds_nothing_that_commands_a_terminal(text: str) -> None:
    with pytest.raises(YamlError, match="line 2: .* holds a character that is no text"):
        parse(f'a: 1\nb: "x{text}y"\n')
    with pytest.raises(YamlError, match="line 2: .* holds a character that is no text"):
        parse(f'a: 1\n"x{text}y": 2\n')
    assert parse('a: "1\\n\\t2 é 猫"')["a"] == "1\n\t2 é 猫"


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(YamlError, match="^cannot be read: a (pipe|device), not a file$"):
            read_mapping(path)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-3", 0.001),
        ("-1E5", -1e5),
        ("+2e+4", 2e4),
        ("1.0e-3", 0.001),
        ("1.5e3", 1500.0),
        (".inf", math.inf),
    ],
)
def test_numbers_are_numbers_as_people_write_them(text: str, number: float) -> None:
    value = parse(f"a: {text}")["a"]
    assert isinstance(value, float)
    assert value == number


@pytest.mark.parametrize("text", ["1e", "e3", "1:99", "1e-3x", "'1e-3'"])
def test_words_stay_words(text: str) -> None:
    assert parse(f"a: {text}")["a"] == text.strip("'")


def test_an_anchor_stands_for_its_value() -> None:
    assert parse("a: &x {k: 1}\nb: *x\n") == {"a": {"k": 1}, "b": {"k": 1}}


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(YamlError, match="holds more than .* values"):
        parse("\n".join(lines))


def test_a_merge_key_fills_in_what_the_mapping_does_not_say() -> None:
    text = "base: &base {lr: 0.1, epochs: 3}\nlong:\n  <<: *base\n  epochs: 30\n"
    assert parse(text)["long"] == {"lr": 0.1, "epochs": 30}


def test_read_mapping_reads_utf8(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes("question: Où est l'été?\n".encode())
    assert read_mapping(file) == {"question": "Où est l'été?"}


def test_a_file_that_is_not_utf8_is_refused_with_the_place(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(YamlError, match=r"^is not UTF-8 text \(byte 3\)$"):
        read_mapping(file)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="^cannot be read: No such file or directory$"):
        read_mapping(tmp_path / "none.yaml")
    with pytest.raises(YamlError, match="^cannot be read: Is a directory$"):
        read_mapping(tmp_path)


STUDY = {
    "study": "s",
    "data": {"x": "digits", "y": {"type": "digits"}},
    "stages": {"A": {"trainable": "classify", "config": {"lr": 0.1}}},
    "seeds": [0],
}


def changed(setting: str) -> dict[str, object]:
    """The top-level keys that a setting changes in STUDY."""
    mapping = copy.deepcopy(STUDY)
    apply_setting(mapping, setting)
    return {key: value for key, value in mapping.items() if STUDY.get(key) != value}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("study=t", {"study": "t"}),
        (" study =t", {"study": "t"}),
        ("seeds=[1, 2]", {"seeds": [1, 2]}),
        ("seeds=", {"seeds": None}),
        ("question=a=b", {"question": "a=b"}),
        ("reference={A: 0.5}", {"reference": {"A": 0.5}}),
        ("resources.workers=2", {"resources": {"workers": 2}}),
        ("compare.metric=val/loss", {"compare": {"metric": "val/loss"}}),
        (
            "stages.A.config.lr=1e-3",
            {"stages": {"A": {"trainable": "classify", "config": {"lr": 0.001}}}},
        ),
        (
            "stages.A.config.new=1",
            {"stages": {"A": {"trainable": "classify", "config": {"lr": 0.1, "new": 1}}}},
        ),
        (
            "stages.A.grid.lr=[1, 2]",
            {
                "stages": {
                    "A": {"trainable": "classify", "config": {"lr": 0.1}, "grid": {"lr": [1, 2]}}
                }
            },
        ),
        ("data.x=cifar10", {"data": {"x": "cifar10", "y": {"type": "digits"}}}),
        (
            "data.x.size=16",
            {"data": {"x": {"type": "digits", "size": 16}, "y": {"type": "digits"}}},
        ),
        ("data.y.size=16", {"data": {"x": "digits", "y": {"type": "digits", "size": 16}}}),
    ],
)
def test_a_setting_changes_its_place_and_no_other(
    setting: str, expected: dict[str, object]
) -> None:
    assert changed(setting) == expected


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("seeds", "--set seeds: must be KEY=VALUE, such as seeds=[0,1]"),
        ("=3", "--set =3: must be KEY=VALUE, such as seeds=[0,1]"),
        ("stagse.A.seeds=[1]", "stagse: unknown key in --set (did you mean 'stages'?)"),
        ("stages.AA.seeds=[1]", "stages.AA: unknown key in --set (did you mean 'A'?)"),
        ("stages.Z.config.lr=1", "stages.Z: unknown key in --set (there are: A)"),
        ("data.z.size=3", "data.z: unknown key in --set (there are: x, y)"),
        ("a..b=1", "a: unknown key in --set (there are: study, data, stages, seeds)"),
        ("study.x=2", "study: holds 's', which has no keys (--set study.x)"),
        ("seeds.0=3", "seeds: holds [0], which has no keys (--set seeds.0)"),
        (
            "stages.A.config.lr.x=3",
            "stages.A.config.lr: holds 0.1, which has no keys (--set stages.A.config.lr.x)",
        ),
        (
            "seeds=[1",
            "--set seeds=[1: line 1, column 3: expected ',' or ']', but got '<stream end>' "
            "(not valid YAML)",
        ),
    ],
)
def test_a_wrong_setting_says_what_is_wrong_and_changes_nothing(setting: str, line: str) -> None:
    mapping = copy.deepcopy(STUDY)
    with pytest.raises(YamlError) as error:
        apply_setting(mapping, setting)
    assert str(error.value) == line
    assert mapping == STUDY


def test_a_setting_of_one_stage_leaves_another_of_the_same_anchor_alone() -> None:
    text = "stages:\n  A: {config: &c {lr: 0.1}}\n  B: {config: *c}\n"
    mapping = parse(text)
    apply_setting(mapping, "stages.A.config.lr=0.5")
    assert mapping["stages"]["A"]["config"] == {"lr": 0.5}
    assert mapping["stages"]["B"]["config"] == {"lr": 0.1}


def test_values_at_finds_every_place_that_fits() -> None:
    mapping = {"data": {"x": {"path": "p"}, "y": {"size": 8}, "z": "digits", "w": {"path": "q"}}}
    found = [owner[key] for owner, key in values_at(mapping, "data.*.path")]
    assert found == ["p", "q"]
    assert [key for _, key in values_at(mapping, "data.*")] == ["x", "y", "z", "w"]
    assert list(values_at(mapping, "data")) == [(mapping, "data")]


@pytest.mark.parametrize("mapping", [None, 3, ["data"], {}, {"data": None}, {"data": ["path"]}])
def test_values_at_passes_over_what_has_another_shape(mapping: object) -> None:
    assert list(values_at(mapping, "data.*.path")) == []


def test_values_may_be_replaced_while_they_are_walked() -> None:
    mapping = {"data": {"x": {"path": "p"}, "y": {"path": "q"}}}
    for owner, key in values_at(mapping, "data.*.path"):
        owner[key] = f"/abs/{owner[key]}"
    assert mapping == {"data": {"x": {"path": "/abs/p"}, "y": {"path": "/abs/q"}}}
