"""Plays the person before the browser: follows every URL that a program prints, and consents.

Usage: person.py COMMAND...; ends as the command does.
"""

import html
import http.cookiejar
import re
import subprocess
import sys
import urllib.parse
import urllib.request


def consent(url):
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    with browser.open(url, timeout=30) as page:
        text = page.read().decode()
    form = dict((name, html.unescape(value)) for name, value in
                re.findall(r'<(?:input|button)[^>]* name="([^"]+)" value="([^"]*)"', text))
    form.pop("deny", None)
    action = re.search(r'action="([^"]+)"', text)
    assert action, text
    target = urllib.parse.urljoin(url, html.unescape(action.group(1)))
    with browser.open(target, urllib.parse.urlencode(form).encode(), timeout=30) as done:
        done.read()


program = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
seen = set()
for line in program.stdout:
    print(line, end="", flush=True)
    for url in re.findall(r"https?://\S+/authorize\?\S+", line):
        if url not in seen:
            seen.add(url)
            try:
                consent(url)
            except OSError as error:
                print(f"person: {error}", flush=True)
sys.exit(program.wait())
