"""`CopyText` without a browser: what stands in for it."""

import pytest

from layerlab.widgets.copy_text import CopyText


def test_text_and_html_stand_in_for_the_widget():
    widget = CopyText("a = '<b>'\nb = 2")
    bundle = widget._repr_mimebundle_()
    assert bundle["text/plain"] == "a = '<b>'\nb = 2"
    assert bundle["text/html"] == "<pre>a = &#x27;&lt;b&gt;&#x27;\nb = 2</pre>"
    widget.text = "c"
    assert widget._repr_mimebundle_()["text/plain"] == "c"
    widget.close()


def test_a_message_that_its_script_never_sends_is_refused_and_shown():
    widget = CopyText("a")
    with pytest.raises(ValueError, match="sends nothing"):
        widget._receive(None, {"kind": "flip"}, [])
    assert "sends nothing" in widget.error
    widget.close()
