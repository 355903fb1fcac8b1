"""The page of `kennel ui` in a browser, before a function that answers what a test wants."""

import base64
import io
import json

import pytest
from lambda_fakes import fake_server, reply
from page_server import GIVE, chromium, client_of, needs_chromium, page_server
from PIL import Image
from playwright.sync_api import expect
from serving_fixtures import image_bytes

from cli.ui.server import PAGE

pytestmark = needs_chromium
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)<!script>" + "Wolf" * 30


def picture(width=64, file_format="PNG"):
    return image_bytes("tan", (width, width // 4), file_format)


def image(name="dog.png", kind="image/png"):
    return {"name": name, "mimeType": kind, "buffer": picture()}


def answer(label="Pug", **more):
    found = [{"label": label, "probability": 0.75}, {"label": "Köter", "probability": 0.25}]
    document = {"predictions": found, "model": {"name": "dogs", "version": "sha256:abc"}, "request_id": "r", **more}
    return reply(document=document, headers={"Server-Timing": "fetch;dur=20, endpoint;dur=61.4, total;dur=90"})


def refusal(status, retry_after=30):
    return reply(status, {"error": {"code": "c", "message": "Why."}}, headers={"Retry-After": str(retry_after)})


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, tmp_path):
    """Opens the page before a function of these answers. It logs no fault, and asks nobody but its own server."""
    for place in ("train/001.Pug/1.png", "train/001.Pug/2.png", "train/Köter/1.png", "valid/Köter/2.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(picture())
    faults = []
    with fake_server() as function, page_server(lambda: client_of(function.port, pauses=()), tmp_path) as port:

        def visit(*answers, **options):
            function.answers[:] = answers
            page = browser.new_context(**options).new_page()
            page.on("console", lambda message: "ERR_FAILED" in message.text or faults.append(message.text))
            page.on("pageerror", lambda error: faults.append(str(error)))
            own = (f"http://127.0.0.1:{port}/", "blob:")
            page.on("request", lambda sent: sent.url.startswith(own) or faults.append(sent.url))
            page.goto(own[0])
            return page, function

        yield visit
        for context in browser.contexts:
            context.close()
    assert faults == []


def test_images_come_in_every_way_and_are_named_with_bars_samples_and_times(visit):
    page, function = visit(answer())
    page.evaluate(GIVE, ["drop", "", base64.b64encode(picture()).decode()])
    expect(page.get_by_role("status")).to_have_text("dog.png: Pug, 75 %")
    widths = page.eval_on_selector_all(".bar i", "bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert abs(widths[0] / widths[1] - 3) < 0.1
    for text in ("endpoint and model 61 ms", "fetching the image 20 ms", "the function itself 9 ms", "network"):
        expect(page.locator("article")).to_contain_text(text)
    page.wait_for_load_state("networkidle")
    assert page.eval_on_selector_all(".samples img", "samples => samples.map(one => one.naturalWidth)") == [64, 64]
    for given in ("paste ", "paste https://a.example/1", "drop https://a.example/2", "drop http://a.example/3"):
        page.evaluate(GIVE, [*given.split(" "), base64.b64encode(picture()).decode()])
    names = ["1.png", "letter.txt", "2.png", "3.png"]
    page.set_input_files("#files", [image(name, "text/plain" if ".txt" in name else "image/png") for name in names])
    expect(page.locator(".bars")).to_have_count(1 + 3 + 3)
    names += ["https://a.example/2", "https://a.example/1", "dog.png", "dog.png"]  # the newest are on top
    assert page.locator("h2").all_inner_texts() == names
    expect(page.locator("article").nth(1)).to_contain_text("not an image")
    addresses = {json.loads(sent.body)["url"] for sent in function.requests if sent.body != picture()}
    assert (addresses, len(function.requests)) == ({*names[4:6]}, 1 + 3 + 3)


def test_what_goes_wrong_is_said_in_words(visit, tmp_path):
    page, function = visit()
    for given, said, buttons in [
        (reply(403, {"Message": "The token is expired"}), "The token is expired (HTTP 403)", ["Try again"]),
        (refusal(413), "too large", ["Send a smaller copy (2048 pixels)"]), (refusal(415), "cannot be read", []),
        (refusal(422), "No image can be had", ["Try again"]), (refusal(424), "The model failed", ["Try again"]),
        (refusal(504), "took too long", ["Try again"]), (refusal(500), "The classifier failed", ["Try again"]),
        (reply(502, raw=HOSTILE.encode()), HOSTILE, ["Try again"]), (reply(raw=b"[]"), "failed", ["Try again"]),
    ]:  # fmt: skip
        function.answers[:] = [given]
        page.set_input_files("#files", image())
        card = page.locator("article").first.locator(".problem")
        expect(card).to_contain_text(said)
        assert card.get_by_role("button").all_inner_texts() == buttons
    (large := tmp_path / "large.bmp").write_bytes(picture(2600, "BMP"))
    page.set_input_files("#files", large)
    expect(page.locator("article").first).to_contain_text(f"{large.stat().st_size:,} bytes")
    function.answers[:] = [answer()]
    page.get_by_role("button", name="smaller copy").first.click()
    expect(page.locator(".bars")).to_be_visible()
    assert Image.open(io.BytesIO(function.requests[-1].body)).size == (2048, 512) and len(function.requests) == 9 + 1
    page.route("**/classify", lambda route: route.fulfill(json={"error": "No stack.", "hint": "kennel deploy\nor"}))
    page.set_input_files("#files", image())
    expect(page.locator("article").first).to_contain_text("cannot be askedNo stack.kennel deploy")
    assert "kennel deploy\nor" in page.locator("article").first.inner_text()  # on lines of their own
    page.route("**/classify", lambda route: route.abort())
    page.get_by_role("button", name="Try again").first.click()
    expect(page.locator("article").first).to_contain_text("does not answer")


def test_a_classifier_that_is_busy_or_wakes_is_asked_again_after_a_countdown(visit):
    page, _ = visit(refusal(429, 1), refusal(503, 3600))
    page.set_input_files("#files", image())
    expect(page.locator(".waiting")).to_contain_text("Too many requests")
    expect(page.locator(".waiting")).to_contain_text("waking from zero")  # after the second, by itself
    expect(page.locator(".countdown")).to_have_text("Next try in 29 s")
    page.get_by_role("button", name="Stop waiting").click()
    expect(page.locator(".countdown")).to_have_count(0)


def test_a_narrow_screen_needs_no_scrolling_sideways_and_shows_hostile_text_of_an_unknown_image(visit):
    screen = {"viewport": {"width": 360, "height": 700}, "is_mobile": True, "has_touch": True}
    page, _ = visit(answer(HOSTILE, known=False, ood_score=1.31), answer(known=True, ood_score=0.5), **screen)
    expect(page.get_by_text("Take a photo")).to_be_visible()
    page.set_input_files("#camera", image(HOSTILE))
    expect(page.locator(".body p, .body li").first).to_contain_text("Probably none of theseThe image")
    assert [page.locator("h2").inner_text(), page.locator(".bars span").first.inner_text()] == [HOSTILE] * 2
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.set_input_files("#files", image())
    expect(page.locator(".sure")).to_be_visible()
    expect(page.locator(".note")).to_have_count(1)


def test_the_keyboard_is_enough_and_the_focus_is_seen(visit):
    page, _ = visit(refusal(424), answer())
    focus = "getComputedStyle(document.activeElement.closest('label, button, #address')).outlineStyle"
    page.keyboard.press("Tab")
    with page.expect_file_chooser():
        page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("https://dogs.example/a.jpg")
    page.keyboard.press("Enter")
    expect(page.locator(".problem")).to_be_visible()
    for _ in range(2):
        page.keyboard.press("Tab")
        assert page.evaluate(focus) == "solid"
    page.keyboard.press("Enter")
    expect(page.locator(".bars")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_moves_where_that_is_not_wanted(visit, scheme):
    answers = {".sure": answer(), ".note": answer(known=False), ".problem": refusal(424), ".waiting": refusal(503)}
    page, _ = visit(*answers.values(), color_scheme=scheme, reduced_motion="reduce")
    for shown in answers:
        page.set_input_files("#files", image())
        expect(page.locator(shown)).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0
    page.evaluate((PAGE.parents[2] / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert {"color-contrast", "label", "image-alt"} <= {one["id"] for one in found["passes"]}
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 30_000
