"""The page of a steered look, in a real browser: marks, both answers, what moved, guard rails, and how far to trust a map."""

import base64
import gzip
import json
import re
import struct
import time

import pytest

HOSTILE = "</script><img src=x onerror=alert(1)>"

pytestmark = pytest.mark.browser


# --- made-up data, packed as `docs/page-format.md` tells it ------------------------------------------------------------


def packed(dtype, numbers, largest=None):
    form = {"u16": "H", "u32": "I"}[dtype]
    data = base64.b64encode(gzip.compress(struct.pack(f"<{len(numbers)}{form}", *numbers))).decode()
    out = {"dtype": dtype, "shape": [len(numbers)], "data": data}
    return out if largest is None else {**out, "max": largest}


def sparse(rows, columns, *, signed=False):
    """`rows`: for each row a dict from column to weight."""
    start, index, value = [0], [], []
    for row in rows:
        index += sorted(row)
        value += [row[c] for c in sorted(row)]
        start.append(len(index))
    largest = max((abs(v) for v in value), default=1.0)
    whole = [round(v / largest * 32767) + 32768 if signed else round(v / largest * 65535) for v in value]
    return {
        "rows": len(rows),
        "cols": columns,
        "start": packed("u32", start),
        "index": packed("u32", index),
        "value": packed("u16", whole, largest),
        "floor": 0.0004,
        "signed": signed,
    }


TEXT = (
    "The light was old . " * 3 + "\n" + "Once Ysolde kept it . Now Tobias keeps it . " + "\n" + "Some say it was dark ."
).split(" ")
TEXT = [w.strip("\n") for w in TEXT if w.strip("\n")]
OLD = ["Ysolde", "keeps", "it"]
NEW = ["Tobias", "keeps", "it", "."]
ONCE, NOW, SOME = TEXT.index("Once"), TEXT.index("Now"), TEXT.index("Some")
BEFORE = [{ONCE: 0.1, ONCE + 1: 0.3, NOW: 0.05}, {ONCE + 1: 0.3}, {ONCE + 2: 0.2}, {ONCE + 3: 0.1}]
AFTER = [{NOW: 0.2, NOW + 1: 0.6, ONCE: 0.05}, {NOW + 1: 0.7}, {NOW + 2: 0.3}, {NOW + 3: 0.2}, {NOW + 4: 0.1}]
MOVED = [{c: AFTER[0].get(c, 0) - BEFORE[0].get(c, 0) for c in AFTER[0] | BEFORE[0]}]


def words(listed, firsts=(0,)):
    glue = ["\n\n" if i + 1 in firsts else " " for i in range(len(listed))]
    return {"words": listed, "glue": glue, "sentences": list(firsts), "paragraphs": list(firsts)}


def view(name, label, rows, *, signed=False):
    return {"name": name, "label": label, "note": f"the note of {name}", "map": sparse(rows, len(TEXT), signed=signed)}


def method(name, score, verdict, removal="keys"):
    interval = {"low": None, "high": None} if score is None else {"low": score - 10, "high": score + 10}
    return {
        "name": name,
        "label": f"method {name}",
        "removal": removal,
        "measure": "comprehensiveness",
        "score": score,
        "verdict": verdict,
        **interval,
    }


def steered(**more):
    marks = [
        ([[NOW, NOW + 4]], "boost", "boost ×4"),
        ([[ONCE, ONCE + 3]], "damp", "damp ×¼"),
        ([[NOW + 1, NOW + 2], [0, 2]], "share", "share 30 %"),
        ([[SOME, SOME + 5]], "mute", "mute"),
    ]
    return {
        "version": 1,
        "kind": "answer",
        "title": "Who keeps the light?",
        "question": "Who keeps the light?",
        "model": "SmolLM2-135M-Instruct",
        "tokens": 60,
        "layers": 30,
        "heads": 9,
        "selection": "mean over all layers and heads",
        "command": "recuerdo steer --model smollm2 --out page.html",
        "text": words(TEXT, (0, ONCE, SOME)),
        "answer": words(NEW),
        "views": [view("lift", "what this word adds", AFTER), view("raw", "raw", AFTER)],
        "atlas": None,
        "sinks": [],
        "map": None,
        "marks": [
            {"words": w, "action": a, "label": label, "scope": "layers 10–23", "author": "maria", "reason": f"why {a}"}
            for w, a, label in marks
        ],
        "before": {
            "answer": words(OLD),
            "views": [view("lift", "what this word adds", BEFORE), view("raw", "raw", BEFORE)],
        },
        "moved": view("moved", "what moved", MOVED, signed=True),
        "guard": {
            "kl": 0.42,
            "plausible": 0.94,
            "fluency": [4.31, 4.28],
            "mass": [0.04, 0.3],
            "warnings": ["the boost is so strong that the text may be repeated"],
        },
        "trust": {
            "score": 71,
            "low": 60,
            "high": 80,
            "note": "measured on 40 questions",
            "verdict": "better than chance",
            "methods": [
                method("lift", 71, "better than chance"),
                method("raw", 64, "better than chance", "input"),
                method("raw", 3, "this map is decoration"),
                method("gradient", None, None),
            ],
        },
        **more,
    }


# --- the browser -----------------------------------------------------------------------------------------------------


def until(page, condition):
    """Wait for a condition; Playwright's own `wait_for_function` needs `eval`, which the page forbids."""
    end = time.monotonic() + 10
    while not page.evaluate(condition):
        if time.monotonic() > end:
            pytest.fail(f"this did not come true within 10 s: {condition}")
        page.wait_for_timeout(20)


def settled(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def heat_of(page):
    """The signed step of every coloured word: {word: step}."""
    settled(page)
    found = page.evaluate("[...document.querySelectorAll('[data-word]')].map(w => [w.dataset.word, w.className])")
    steps = {int(w): re.match(r"([hc])(\d+)", c) for w, c in found}
    return {w: int(m[2]) * (1 if m[1] == "h" else -1) for w, m in steps.items() if m}


def state(page):
    return page.evaluate("recuerdo.state()")


def luminance(colour):
    channels = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
    lines = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * lines[0] + 0.7152 * lines[1] + 0.0722 * lines[2]


# --- marks -----------------------------------------------------------------------------------------------------------


def test_marked_words_are_drawn_by_action_and_not_by_colour_alone(opened):
    page = opened(steered())
    drawn = page.evaluate(
        """[...document.querySelectorAll('section.text mark')].map(m => {
            const s = getComputedStyle(m)
            return [m.dataset.act, s.textDecorationLine, s.textDecorationStyle,
                    [...m.querySelectorAll('[data-word]')].map(w => +w.dataset.word)]
        })"""
    )
    lines = {act: (line, style) for act, line, style, _ in drawn}
    assert lines == {
        "boost": ("underline", "solid"),
        "share": ("underline", "double"),
        "damp": ("underline", "dotted"),
        "mute": ("line-through", "solid"),
    }
    on = {act: sorted({w for a, _, _, inside in drawn if a == act for w in inside}) for act in lines}
    assert on == {
        "boost": list(range(NOW, NOW + 4)),
        "share": [0, 1, NOW + 1],
        "damp": list(range(ONCE, ONCE + 3)),
        "mute": list(range(SOME, SOME + 5)),
    }
    labels = page.eval_on_selector_all("section.text .tag", "all => all.map(t => t.textContent.replace('\\u2060', ''))")
    assert labels == ["share 30 %", "damp ×¼", "share 30 %", "boost ×4", "mute"]


def test_marks_leave_the_words_as_they_are(opened):
    page = opened(steered())
    plain = opened(steered(marks=None))
    read = "[...document.querySelectorAll('section.text p')].map(p => { p.querySelectorAll('small').forEach(s => s.remove()); return p.textContent })"
    assert page.evaluate(read) == plain.evaluate(read)
    assert plain.locator("mark").count() == 0


def test_marks_are_listed_with_who_and_why_and_lead_to_their_words(opened):
    page = opened(steered(), viewport={"width": 1360, "height": 320})
    section = page.locator("section[aria-labelledby=marks-title]")
    said = section.inner_text()
    for part in ["Now Tobias keeps it", "boost ×4", "layers 10–23 · maria", "“why mute”"]:
        assert part in said
    section.get_by_role("button", name="Some say it was dark").click()
    until(page, f"document.querySelector('[data-word=\"{SOME}\"]').getBoundingClientRect().bottom < innerHeight")


# --- before and after --------------------------------------------------------------------------------------------------


def test_both_answers_are_seen_and_b_switches_the_maps(opened):
    page = opened(steered())
    main = page.inner_text("main")
    assert "Ysolde keeps it" in main
    assert "Tobias keeps it" in main
    after = heat_of(page)
    assert max(after, key=after.get) == NOW + 1
    page.keyboard.press("b")
    before = heat_of(page)
    assert state(page)["side"] == "before"
    assert max(before, key=before.get) == ONCE + 1
    assert max(before.values()) < max(after.values())  # one scale for both
    assert "read before the marks" in page.inner_text("#reads-title")
    until(page, "location.hash === '#side=before'")
    until(
        page,
        "document.querySelector('[aria-live]').textContent.includes('the whole answer, before the marks, read most: Ysolde')",
    )
    page.reload()
    until(page, "'recuerdo' in window")
    assert heat_of(page) == before
    page.keyboard.press("b")
    assert heat_of(page) == after


def test_buttons_and_the_other_answer_switch_too(opened):
    page = opened(steered())
    toggle = page.get_by_role("group", name="marks")
    toggle.get_by_role("button", name="before").click()
    assert toggle.get_by_role("button", name="before").get_attribute("aria-pressed") == "true"
    assert state(page)["side"] == "before"
    assert page.locator("[role=listbox]").count() == 1
    page.click("[data-other='1']")
    assert (state(page)["side"], state(page)["query"]) == ("after", 1)
    heat = heat_of(page)
    assert max(heat, key=heat.get) == NOW + 1


def test_the_focus_stays_with_the_answer_that_is_chosen(opened):
    page = opened(steered())
    page.focus("[role=option][tabindex='0']")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("b")
    until(page, "document.activeElement.getAttribute('role') === 'option'")
    page.keyboard.press("ArrowRight")
    assert (state(page)["side"], state(page)["query"]) == ("before", 3)
    assert page.evaluate("document.activeElement.textContent") == "it"


def test_what_moved_shows_gains_and_losses(opened):
    page = opened(steered(), "word=2")
    page.get_by_role("button", name="what moved").click()
    heat = heat_of(page)
    assert {w: s > 0 for w, s in heat.items()} == {w: v > 0 for w, v in MOVED[0].items() if w in heat}
    assert heat[NOW + 1] == 32
    assert heat[ONCE + 1] < 0
    assert page.inner_text("#reads-title") == "What moved"
    shares = page.eval_on_selector_all("aside ol .share", "all => all.map(s => s.innerText.replace('\\u202f', ' '))")
    assert shares[:2] == ["+60 %", "−30 %"]
    assert "the sentence that gained most" in page.inner_text("aside")
    until(page, "location.hash === '#view=moved'")
    page.keyboard.press("ArrowRight")
    assert (state(page)["view"], state(page)["query"]) == ("lift", 1)


# --- guard rails and trust ---------------------------------------------------------------------------------------------


def test_guard_rails_are_numbers_and_their_warnings_stand_over_the_text(opened):
    page = opened(steered())
    rails = page.inner_text("section[aria-labelledby=guard-title]").replace("\u202f", " ")
    for number in ["4.0 % → 30 %", "94 %", "0.42 nats", "4.31 → 4.28"]:
        assert number in rails
    note = page.get_by_role("note")
    assert "may be repeated" in note.inner_text()
    assert note.bounding_box()["y"] < page.locator("section.text").bounding_box()["y"]


def test_trust_follows_the_view(opened):
    page = opened(steered())
    chip = page.get_by_role("button", name="trust:")
    assert chip.get_attribute("aria-label") == "trust: 71 of 100, between 60 and 80: better than chance; to the details"
    trust = page.locator("section[aria-labelledby=trust-title]")
    for part in ["71 of 100", "better than chance", "0 chance", "oracle 100", "measured on 40 questions"]:
        assert part in trust.inner_text()
    assert page.get_by_text("This map is decoration.").count() == 0
    page.keyboard.press("2")
    assert "3 of 100, between −7 and 13: this map is decoration" in chip.get_attribute("aria-label")
    note = page.get_by_role("note").filter(has_text="This map is decoration.")
    assert note.bounding_box()["y"] < page.locator("section.text").bounding_box()["y"]
    trust.locator("summary").click()
    rows = trust.locator("tbody tr").all_inner_texts()
    assert len(rows) == 4
    assert "method raw" in trust.locator("[aria-current=true]").inner_text()
    assert "–" in rows[3]
    page.keyboard.press("b")
    assert "not measured" in chip.inner_text()
    chip.click()
    assert page.evaluate("document.activeElement.id") == "trust-title"


def test_a_score_that_could_not_be_measured_says_why(opened):
    page = opened(steered(trust={"score": None, "low": None, "high": None, "note": "the answer has one token"}))
    trust = page.inner_text("section[aria-labelledby=trust-title]")
    assert "Not measured" in trust
    assert "the answer has one token" in trust
    assert "NaN" not in page.inner_html("#page")


# --- tables, files, screens --------------------------------------------------------------------------------------------


def test_tables_and_saved_files_hold_the_marks(opened, tmp_path):
    page = opened(steered(), accept_downloads=True)
    with page.expect_download() as picture:
        page.keyboard.press("e")
    svg = tmp_path / "saved.svg"
    picture.value.save_as(svg)
    assert svg.read_text(encoding="utf-8").count("<path") >= 6
    assert "boost ×4" in svg.read_text(encoding="utf-8")
    page.keyboard.press("t")
    assert "boost ×4" in page.inner_text(f"#shares tr[data-row='{NOW}']")
    listed = page.locator("#marks-table tbody tr").all_inner_texts()
    assert len(listed) == 4
    assert "why mute" in listed[3]
    with page.expect_download() as numbers:
        page.keyboard.press("e")
    saved = tmp_path / "saved.json"
    numbers.value.save_as(saved)
    content = json.loads(saved.read_text(encoding="utf-8"))
    assert [m["label"] for m in content["marks"]] == ["boost ×4", "damp ×¼", "share 30 %", "mute"]
    assert content["side"] == "after"
    assert content["guard"]["kl"] == 0.42
    assert next(w["mark"] for w in content["words"] if w["word"] == NOW + 1) == "boost ×4, share 30 %"


@pytest.mark.parametrize("where", ["", "side=before&word=1", "view=moved", "show=table", "view=raw"])
def test_nothing_overflows_a_small_screen(opened, where):
    page = opened(steered(), where, viewport={"width": 360, "height": 740})
    page.evaluate("document.querySelector('details').open = true")
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("width", [901, 1100, 1280])
def test_the_bar_keeps_its_tools_on_the_screen(opened, width):
    page = opened(steered(), viewport={"width": width, "height": 700})
    box = page.get_by_role("button", name="help").bounding_box()
    assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_both_themes(opened, scheme):
    page = opened(steered(), "view=raw", color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    pairs = page.evaluate(
        """[...document.querySelectorAll('mark, .tag, [data-word], [data-other], [role=note] *, .chip *, aside small, dd')]
            .filter(e => e.textContent.trim() !== '')
            .map(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor])"""
    )
    assert len(pairs) > 60
    for ink, back in pairs:
        high, low = sorted([luminance(ink), luminance(paper if back.endswith(", 0)") else back)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5


# --- other pages, hostile data -----------------------------------------------------------------------------------------


def test_a_text_that_read_itself_has_two_sides_without_answers(opened):
    rows = [{0: 0.1}] + [{i: 0.5} for i in range(len(TEXT))]
    turned = [{1: 0.3}] + [{len(TEXT) - 1 - i: 0.5} for i in range(len(TEXT))]
    own = {"kind": "text", "question": None, "answer": None, "views": [view("aside", "sinks aside", rows)]}
    page = opened(steered(**own, before={"answer": None, "views": [view("aside", "sinks aside", turned)]}), "word=3")
    assert heat_of(page) == {2: 32}
    page.keyboard.press("b")
    assert heat_of(page) == {len(TEXT) - 3: 32}
    assert state(page)["query"] == 3


def test_hostile_words_and_marks_are_only_words(opened):
    bad = [
        {
            "words": [[-5, 1], [3, 10**6], [4, 2]],
            "action": HOSTILE,
            "label": HOSTILE,
            "scope": HOSTILE,
            "reason": HOSTILE,
        },
        {"words": [], "action": "boost", "label": HOSTILE},
        {"words": [[10**9, 10**9 + 1]], "action": "mute", "label": "nowhere"},
    ]
    trust = {"score": 1e9, "low": -1e9, "high": 1e9, "note": HOSTILE, "verdict": HOSTILE, "methods": []}
    guard = {"kl": None, "warnings": [HOSTILE]}
    page = opened(steered(marks=bad, trust=trust, guard=guard, moved={**view(HOSTILE, HOSTILE, MOVED, signed=True)}))
    for key in ["b", "3", "t", "b", "t", "1"]:
        page.keyboard.press(key)
        settled(page)
    assert page.locator("main [data-word]").count() == len(TEXT)
    assert page.evaluate("document.querySelectorAll('img, iframe').length") == 0


def test_a_page_without_the_new_fields_is_as_before(opened):
    bare = {k: v for k, v in steered().items() if k not in ("marks", "before", "moved", "guard", "trust")}
    page = opened(bare, "side=before")
    page.keyboard.press("b")
    assert state(page)["side"] == "after"
    said = page.inner_text("body")
    for word in ["marks", "Guard", "trust", "before", "moved"]:
        assert word not in said
