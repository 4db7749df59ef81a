"""Plays the person before the browser: reads the consent page at a URL, consents, and follows where
that leads. Usage: person.py URL, or BROWSER="python3 .../person.py %s"
"""

import html
import http.cookiejar
import re
import sys
import urllib.parse
import urllib.request

url = sys.argv[1]
browser = urllib.request.build_opener(
    urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
with browser.open(url, timeout=30) as page:
    text = page.read().decode()
form = {name: html.unescape(value) for name, value in
        re.findall(r'<(?:input|button)[^>]* name="([^"]+)" value="([^"]*)"', text)}
form.pop("deny", None)
target = urllib.parse.urljoin(url, "/authorize/consent")
with browser.open(target, urllib.parse.urlencode(form).encode(), timeout=30) as done:
    done.read()
