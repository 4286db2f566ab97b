"""`CopyText` in the browser: the clipboard where it is allowed, a selection where it is not."""

CELL = """
from layerlab.widgets.copy_text import CopyText
copy = CopyText("a = '<b>x</b>'\\nb = 2")
copy
"""
TEXT = "a = '<b>x</b>'\nb = 2"
REFUSE = "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"


def test_copies_and_where_it_may_not_selects(lab):
    with lab.open_lesson(lab.write_notebook("copy.ipynb", CELL, "copy.text = 'c'")) as lesson:
        lesson.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        lesson.kernel_eval("None")
        lesson.page.locator(".jp-Cell").first.click()
        lesson.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
        root = lesson.page.locator(".layerlab-copy")
        button = root.get_by_role("button", name="copy as PyTorch")
        button.click()
        root.get_by_text("copied", exact=True).wait_for()
        assert lesson.evaluate("() => navigator.clipboard.readText()") == TEXT

        lesson.evaluate("() => navigator.clipboard.writeText('other')")
        lesson.evaluate(REFUSE)
        button.focus()
        button.press("Enter")
        root.get_by_text("selected: press Ctrl+C").wait_for()
        assert lesson.evaluate("() => getSelection().toString()") == TEXT
        lesson.page.keyboard.press("Control+c")
        assert lesson.evaluate("() => navigator.clipboard.readText()") == TEXT

        lesson.run_all()  # the second cell: another text, and nothing is said of the old one
        root.get_by_text("c", exact=True).wait_for()
        assert root.get_by_role("status").text_content() == ""
        assert lesson.errors() == lesson.console_errors == lesson.outside_requests == []
