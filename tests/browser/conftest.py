"""A real browser, started once, and pages opened in it that may do nothing but show."""

import json
import shutil
import time
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "src" / "recuerdo" / "explain" / "static" / "page.html"
SLOT = '<script type="application/json" id="recuerdo-data">null</script>'
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
    found = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if found is None:
        pytest.skip("no Chromium on this machine (chromium, chromium-browser or google-chrome)")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open data as a page: `opened(data, hash, **context)`. Any request, console error or dialog fails the test."""
    trouble, contexts = [], []

    def open_page(data, where="", *, wait=True, **options):
        file = tmp_path / f"page{len(contexts)}.html"
        text = json.dumps(data).replace("<", "\\u003c")
        file.write_text(
            TEMPLATE.read_text(encoding="utf-8").replace(SLOT, SLOT.replace("null", text)), encoding="utf-8"
        )
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()

        def decide(route):
            url = route.request.url
            if url.startswith("file://"):
                route.continue_()
            else:
                trouble.append(f"a request to {url}")
                route.abort()

        def hear(message):
            if message.type in ("error", "warning"):
                trouble.append(f"console {message.type}: {message.text}")

        page.route("**/*", decide)
        page.on("console", hear)
        page.on("pageerror", lambda e: trouble.append(f"error: {e}"))
        page.on("dialog", lambda d: (trouble.append(f"dialog: {d.message}"), d.dismiss()))
        page.goto(f"{file.as_uri()}#{where}")
        if wait:
            until(page, "'recuerdo' in window")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []


def until(page, condition, argument=None):
    """Wait for a condition; Playwright's own `wait_for_function` needs `eval`, which the page forbids."""
    end = time.monotonic() + 10
    while not page.evaluate(condition, argument):
        if time.monotonic() > end:
            pytest.fail(f"this did not come true within 10 s: {condition}")
        page.wait_for_timeout(30)
