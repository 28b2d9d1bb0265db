"""Tables, and text that wants to steer a terminal."""

from __future__ import annotations

from podwire.cli import output


def test_columns_are_aligned_and_lists_take_lines() -> None:
    rows = [(5, ["k8s:app=web", "k8s:env=prod"], "ready"), (123, [], True)]
    assert output.lines(["ID", "LABELS", "STATE"], rows) == [
        "ID    LABELS         STATE",
        "5     k8s:app=web    ready",
        "      k8s:env=prod",
        "123                  yes",
    ]


def test_wide_characters_keep_columns() -> None:
    assert output.lines(["A", "B"], [("容器", 1), ("x", 2)]) == ["A      B", "容器   1", "x      2"]


def test_escapes_are_shown_not_obeyed() -> None:
    assert output.safe("\x1b[31mred\x1b]0;t\x07") == "\\x1b[31mred\\x1b]0;t\\x07"
    assert output.safe("a\u202eb\u2028c") == "a\\u202eb\\u2028c"
    assert output.safe("\x9b31m\u200b") == "\\x9b31m\\u200b"


def test_nothing_printed_is_a_control_character() -> None:
    for number in [*range(0x3000), 0xD800, 0xE000, 0xFEFF, 0xFFFE, 0xE0001, 0x10FFFF]:
        (_, line) = output.lines(["A"], [(f"a{chr(number)}b",)])
        assert line.isprintable(), hex(number)
