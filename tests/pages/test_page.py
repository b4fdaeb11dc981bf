from __future__ import annotations

from lenspipe.pages.page import page_environment


def test_names_from_files_are_text_in_a_page_and_nothing_else() -> None:
    page = page_environment().from_string("<b>{{ name }}</b> {{ 3000 | number }}")
    shown = page.render(name='<script>"\x1b[2J\u202e{{ 7 * 7 }}')
    assert shown == (
        r"<b>&lt;script&gt;&#34;\u001b[2J\u202e{{ 7 * 7 }}</b> 3,000"  # escapes, not characters
    )
