# SPDX-License-Identifier: Apache-2.0
"""A picture of the page of a running server, after it has been asked something.

    python3 screenshot.py ADDRESS FILE.png QUESTION...
"""
import sys

from webdriver import Browser, found


def main(address, file, *questions):
    if not found():
        raise SystemExit("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    with Browser() as b:
        b.size(1000, 840)
        b.open(address)
        b.wait("the page", "return document.documentElement.dataset.ready === 'yes'")
        for question in questions:
            b.type("#question", question + "\ue007")
            b.wait("the answer", "return document.querySelector('#send').checkVisibility()", 120)
        b.run("document.activeElement.blur()")
        if wrong := b.text(".wrong.failed"):
            raise SystemExit(f"the server says: {wrong[0]}")
        b.screenshot(file)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
