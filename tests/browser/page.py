# SPDX-License-Identifier: Apache-2.0
"""The server's page in a real browser: two questions of two skills, who answered and why, the
comparison, what is kept, what must stay text, keys, a phone, the keyboard.

    ARTEL=PROGRAM TESTS=FOLDER python3 page.py     77: no Chromium or no driver here

ARTEL_TEST_MIXTURE names a mixture to ask instead of a tiny one that is trained here;
ARTEL_TEST_SHOTS a folder that gets pictures of what was seen.
"""
import http.client
import os
import sys
import tempfile

from webdriver import Browser, found
import mixture

ENTER, TAB, RIGHT, ESCAPE = "\ue007", "\ue004", "\ue014", "\ue00c"
READY = "return document.documentElement.dataset.ready === 'yes'"
DONE = "return document.querySelector('#send').checkVisibility()"
HOSTILE = """# <img src=x onerror="document.title='owned'">
<script>document.title='owned'</script> [press](javascript:document.title='owned')
[data](data:text/html,x) ![picture](https://elsewhere.example/x.png) <svg onload=alert(1)>
[good](https://good.example/a?b=1) http://bare.example/x. | a | <b>b</b> |

| a | <i>b</i> |
|---|---|
| `<u>` | [x](JaVaScRiPt:1) |

```html"><img src=y>
<iframe src="https://elsewhere.example"></iframe>
```
"""


def check(right, what):
    if not right:
        raise SystemExit(f"FAILED: {what}")


def shot(b, name):
    if folder := os.environ.get("ARTEL_TEST_SHOTS"):
        b.screenshot(f"{folder}/{name}.png")


def ask(b, question):
    b.type("#question", question.replace("\n", "\ue008\ue007\ue008") + ENTER)
    b.wait("the answer", DONE, 120)


# ---- what must be true ----


def answers_have_a_limit(b, asked):
    """For the rest of the test: a toy does not always know when to end."""
    b.click("#open-settings")
    b.type("#max-tokens", "4" + ENTER)
    ask(b, asked[0][1])
    check("cut at the limit" in b.text(".assistant .route")[-1], f"four tokens: {b.text('.assistant .route')}")
    b.click("#open-settings")
    b.run("document.querySelector('#max-tokens').value = ''")
    b.type("#max-tokens", "32" + ENTER)
    b.click("#conversations li.open [title=Delete]")
    b.ask("POST", "/alert/accept")
    check(b.count("#messages .assistant") == 0 and b.count("#conversations li") == 0, "the conversation is gone")


def files_are_guarded_and_cached(server):
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"))

    def get(path, **headers):
        connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response, response.read()

    response, body = get("/")
    check(response.status == 200 and b"<!DOCTYPE html>" in body, f"/ is {response.status}")
    check("default-src 'self'" in response.getheader("Content-Security-Policy", ""), "no policy")
    check(response.getheader("X-Content-Type-Options") == "nosniff", "types may be guessed")
    tag = response.getheader("ETag")
    for sent in (tag, f'"other", W/{tag}'):
        again, body = get("/", If_None_Match=sent)
        check(again.status == 304 and not body, f"If-None-Match {sent}: {again.status}")
    check(get("/", If_None_Match='"other"')[0].status == 200, "another tag is not ours")
    for path in ("/page/main.js", "/page/page.css", "/page/palette.css", "/page/icon.svg"):
        response, body = get(path)
        check(response.status == 200 and len(body) > 100, f"{path}: {response.status}")
    check(get("/page/secret")[0].status == 404, "what is not there is 404")
    connection.close()


def two_skills_have_two_experts(b, asked):
    """The stream is slowed down, so that even a toy's answer comes in pieces."""
    b.run("""window.lengths = new Set();
        new MutationObserver(() => {
            const all = document.querySelectorAll('.assistant .text');
            if (all.length) lengths.add(all[all.length - 1].textContent.length);
        }).observe(document.querySelector('#messages'), {subtree: true, childList: true});""")
    b.devtools("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=5000, uploadThroughput=-1)
    for _, question in asked:
        ask(b, question)
    b.devtools("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    names = b.text(".assistant .who")
    check(names == [domain for domain, _ in asked], f"{names} answered {asked}")
    check(len(b.run("return [...lengths]")) >= 4, f"text grew in {b.run('return [...lengths]')} letters")
    check(all("% sure" in line and "layers agree" in line for line in b.text(".assistant .route")),
          f"what is known of the route: {b.text('.assistant .route')}")
    colours = b.run("return [...document.querySelectorAll('.assistant .who')].map(e => getComputedStyle(e).color)")
    check(len(set(colours)) == 2, f"colours {colours}")


def the_map_is_drawn(b):
    cells = b.run("""return [...document.querySelectorAll('.assistant:last-child .heat')].map(svg => {
        const of = [...svg.querySelectorAll('.heat-value')];
        const box = svg.getBoundingClientRect();
        return {n: of.length, best: svg.querySelectorAll('.best').length, said: svg.getAttribute('aria-label'),
                sum: of.reduce((s, c) => s + Number(c.getAttribute('fill-opacity')), 0), area: box.width * box.height};
    })""")
    check(len(cells) == 1 and cells[0]["area"] > 500, f"maps: {cells}")
    cell = cells[0]
    # Each layer has one choice, and its probabilities add up to 1.
    check(cell["n"] > cell["best"] > 0 and abs(cell["sum"] - cell["best"]) < 0.01 * cell["best"] + 0.01, f"{cell}")
    check("layers chose" in cell["said"], f"in words: {cell['said']}")
    b.click(".assistant:last-child .layers details summary")
    b.wait("a row a layer in numbers", lambda: b.count(".assistant:last-child .layers tbody tr") == cell["best"], 5)
    b.click(".assistant:last-child .layers details summary")


def a_choice_is_kept_to(b, asked):
    (_, question), (other, _) = asked
    b.choose("#expert", other)
    ask(b, question)
    check(b.text(".assistant .who")[-1] == other, "the expert that was chosen answers")
    check(b.count(".assistant:last-child .heat") == 0, "nothing was routed")
    b.choose("#expert", "auto")


def answers_can_be_had_again(b):
    before = b.count(".assistant")
    b.click(".again")
    b.wait("the second answer", DONE)
    check(b.count(".assistant") == before, "the answer takes the other's place")


def stopping_keeps_what_came(b, asked):
    b.devtools("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=2000, uploadThroughput=-1)
    b.type("#question", asked[0][1] + ENTER)
    b.wait("the button", "return document.querySelector('#stop').checkVisibility()")
    b.click("#stop")
    b.wait("the end", DONE)
    b.devtools("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    check("stopped" in b.text(".assistant .route")[-1], f"{b.text('.assistant .route')[-1]}")


def conversations_survive(b, asked):
    b.click("#new")
    ask(b, asked[1][1])
    b.run("window.marker = 1")
    before, titles = b.text("#messages > li"), b.text("#conversations .name")
    check(len(titles) == 2, f"conversations: {titles}")
    b.reload()
    b.wait("the page", READY)
    check(b.run("return window.marker === undefined"), "it was loaded anew")
    check(b.text("#conversations .name") == titles, "the list is as it was")
    check(b.text("#messages > li") == before, f"{b.text('#messages > li')} was {before}")
    b.click("#conversations li.open [title=Rename]")
    b.run("document.querySelector('#name').value = ''")
    b.type("#name", "a <b>name</b>" + ENTER)
    b.wait("the new name", "return document.querySelector('#conversations .name').innerText === 'a <b>name</b>'")
    b.click("#conversations li.open [title=Delete]")
    b.ask("POST", "/alert/accept")
    check(b.count("#conversations li") == 1, "one is gone")


def what_models_write_stays_text(b):
    """A conversation with the worst of answers is opened."""
    b.run("""localStorage.setItem('artel.conversation.bad', JSON.stringify({id: 'bad', title: arguments[0],
        named: true, expert: 'auto', changed: Date.now() + 1e6, messages: [{role: 'user', content: arguments[0]},
        {role: 'assistant', content: arguments[0], asked: 'auto', artel: {expert: '<img src=z onerror=alert(2)>',
         probabilities: null, experts: ['<b>'], layers: 'no list'}}]}));
        localStorage.setItem('artel.conversation.broken', '{"id": 1');""", HOSTILE)
    b.reload()
    b.wait("the page", READY)
    check(b.count("#messages .assistant .code") == 1 and b.count("#messages .assistant table") == 1, "Markdown is shown")
    made = b.run("""return [...document.querySelectorAll('#messages *, #conversations *')].filter(e =>
        ['IMG', 'SCRIPT', 'IFRAME', 'SVG', 'U', 'B', 'OBJECT'].includes(e.nodeName.toUpperCase()) ||
        [...e.attributes].some(a => a.name.startsWith('on'))).map(e => e.outerHTML)""")
    check(made == [], f"text became elements: {made}")
    links = b.run("return [...document.querySelectorAll('#messages a')].map(a => a.href)")
    check(links == ["https://elsewhere.example/x.png", "https://good.example/a?b=1", "http://bare.example/x"], f"{links}")
    check(b.run("return document.title") == "artel", "a script of the text has run")
    check("onerror" in "".join(b.text("#messages .assistant")), "the text is there as it stands")
    b.run("localStorage.removeItem('artel.conversation.bad'); localStorage.removeItem('artel.conversation.broken')")
    b.reload()
    b.wait("the page", READY)


def markdown_is_rendered(b):
    html = b.run("""return import('/page/markdown.js').then(m => Object.fromEntries(arguments[0].map(t => {
        const e = document.createElement('div');
        e.append(m.markdown(t));
        return [t, e.innerHTML];
    })))""", ["a *b* **c** `d` snake_case_word", "- one\n  - two\n- three", "1. x\n\n   y\n2. z", "***a***",
              "# t #\n> q", "2 * 3 * 4", "a\nb", "**open", "\\*a\\*"])
    wanted = {
        "a *b* **c** `d` snake_case_word": "<p>a <em>b</em> <strong>c</strong> <code>d</code> snake_case_word</p>",
        "- one\n  - two\n- three": "<ul><li><p>one</p><ul><li>two</li></ul></li><li>three</li></ul>",
        "1. x\n\n   y\n2. z": '<ol start="1"><li><p>x</p><p>y</p></li><li>z</li></ol>',
        "***a***": "<p><strong><em>a</em></strong></p>",
        "# t #\n> q": "<h4>t</h4><blockquote><p>q</p></blockquote>",
        "2 * 3 * 4": "<p>2 * 3 * 4</p>",
        "a\nb": "<p>a<br>b</p>",
        "**open": "<p>**open</p>",
        "\\*a\\*": "<p>*a*</p>",
    }
    for text, want in wanted.items():
        check(html[text] == want, f"{text!r} is {html[text]}")
    # Nothing that a model writes may take more than linear time, or about.
    slow = b.run("""return import('/page/markdown.js').then(m => arguments[0].map(t => {
        const began = performance.now();
        m.markdown(t.repeat(20000 / t.length));
        return performance.now() - began;
    }))""", ["[", "*a ", "_a", "`", "> ", "- ", "a|", "[a](", "**a", "# ", "![", " *", "~~"])
    check(max(slow) < 3000, f"ms for 20,000 letters: {slow}")


def two_are_compared(b, asked):
    b.click("#tab-compare")
    b.choose("#left", "base")
    b.choose("#right", "auto")
    b.type("#both-question", asked[0][1].replace("\n", " ") + ENTER)
    b.wait("both answers", "return document.querySelector('#both-send').checkVisibility()", 120)
    check(b.text(".side .who") == ["base", asked[0][0]], f"{b.text('.side .who')}")
    check(b.count(".side .heat") == 1 and b.count(".side .wrong") == 0, f"{b.text('.side')}")


def the_mixture_is_shown(b, asked):
    b.click("#tab-mixture")
    b.wait("the mixture", "return document.querySelectorAll('#mixture .box').length > 2")
    experts = b.run("return [...document.querySelectorAll('#mixture table')][0].innerText")
    check(all(name in experts for name, _ in asked) and "train" not in b.text("#mixture .soft")[0], experts)
    check(b.count("#mixture table") >= 2, f"tables: {b.text('#mixture caption')}")


def the_keyboard_is_enough(b):
    b.click("#tab-chat")
    b.type("#tab-chat", RIGHT)
    check(b.run("return document.activeElement.id") == "tab-compare" and b.shown("#panel-compare"), "arrows choose tabs")
    b.type("#tab-compare", RIGHT + RIGHT)
    check(b.shown("#panel-chat") and not b.shown("#panel-compare"), "and go round")
    b.click("#open-settings")
    b.run("document.querySelector('#temperature').value = ''")
    b.type("#temperature", "0.5" + ENTER)
    # The page hears of the dialog's end after it is closed.
    b.wait("Enter to keep the settings", "return JSON.parse(localStorage['artel.settings'] ?? '{}').temperature === '0.5'", 10)
    b.click("#open-settings")
    b.run("document.querySelector('#temperature').value = ''")
    b.type("#temperature", "1" + ESCAPE)
    b.wait("the dialog's end", "return !document.querySelector('#settings').open")
    check(b.run("return JSON.parse(localStorage['artel.settings']).temperature") == "0.5", "Escape does not")
    nameless = b.run("""return [...document.querySelectorAll('button, input, select, textarea, [tabindex="0"]')].filter(e =>
        !(e.innerText || e.labels?.length || e.ariaLabel || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML)""")
    check(nameless == [], f"without a name: {nameless}")


def it_fits_a_phone(b):
    for width, height in ((360, 740), (390, 844), (1280, 800)):
        b.size(width, height, phone=width < 500)
        for view in ("chat", "compare", "mixture"):
            b.click(f"#tab-{view}")
            wide = b.run("return [document.documentElement.scrollWidth, innerWidth]")
            check(wide[0] <= width and wide[1] == width, f"{view} at {width}: {wide}")
            for scheme in ("light", "dark"):
                b.scheme(scheme)
                shot(b, f"{view}-{width}-{scheme}")
    paper = "return getComputedStyle(document.body).backgroundColor"
    b.scheme("light")
    light = b.run(paper)
    b.scheme("dark")
    dark = b.run(paper)
    b.click("#theme")
    check(light != dark and b.run(paper) == light, "the theme can be chosen")
    b.click("#theme")
    b.scheme("light")
    check(b.run(paper) == dark, "dark by day")
    b.click("#theme")


def a_key_is_asked_for_once(b, server, asked):
    b.open(server.address + "/")
    b.wait("the question for a key", "return document.querySelector('#key-dialog').open")
    b.type("#key", "wrong" + ENTER)
    b.wait("word that it is wrong", "return document.querySelector('#key-wrong').checkVisibility()")
    b.type("#key", "right-key-of-this-test" + ENTER)
    b.wait("the page", READY)
    ask(b, asked[0][1])
    check(b.text(".assistant .who") == [asked[0][0]], f"{b.text('.assistant .who')}")
    b.reload()
    b.wait("the page", READY)
    check(not b.shown("#key-dialog"), "the key is known until the tab is closed")
    check(b.run("return localStorage.length > 0 && !JSON.stringify(localStorage).includes('right-key')"), "kept in this tab only")
    said = [line for line in b.console() if "401" not in line]
    check(said == [], f"in the console: {said}")


def main():
    if not found():
        print("no chromium and chromedriver here")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        served = os.environ.get("ARTEL_TEST_MIXTURE") or mixture.tiny(folder)
        asked = mixture.questions(served)
        with mixture.Server(served) as server, Browser() as b:
            files_are_guarded_and_cached(server)
            b.size(1280, 800)
            b.open(server.address + "/")
            b.wait("the page", READY)
            answers_have_a_limit(b, asked)
            two_skills_have_two_experts(b, asked)
            the_map_is_drawn(b)
            a_choice_is_kept_to(b, asked)
            answers_can_be_had_again(b)
            stopping_keeps_what_came(b, asked)
            conversations_survive(b, asked)
            what_models_write_stays_text(b)
            markdown_is_rendered(b)
            two_are_compared(b, asked)
            the_mixture_is_shown(b, asked)
            the_keyboard_is_enough(b)
            it_fits_a_phone(b)
            said = b.console()
            check(said == [], f"in the console: {said}")
            away = [a for a in b.requests() if not a.startswith((server.address + "/", "blob:"))]
            check(away == [], f"asked elsewhere: {away}")
        with open(f"{folder}/keys", "w") as file:
            file.write("right-key-of-this-test\n")
        with mixture.Server(served, "--keys", f"{folder}/keys") as server, Browser() as b:
            a_key_is_asked_for_once(b, server, asked)
    print("the page does what it should")
    return 0


if __name__ == "__main__":
    sys.exit(main())
