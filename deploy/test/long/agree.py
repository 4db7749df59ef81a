"""A person who agrees to what an application asks for: `agree.py URL` prints the URL that the browser
is sent back to. Standard library alone."""

import html
import http.cookiejar
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

REDIRECT = "http://127.0.0.1:7/callback"


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but for the one that leads back to the application."""

    back = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if newurl.startswith(REDIRECT):
            Stay.back = newurl
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def agree(url):
    """The URL at which the browser ends."""
    Stay.back = None
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), Stay)
    with browser.open(url, timeout=30) as page:
        text = page.read().decode()
    form = {name: html.unescape(value) for name, value in
            re.findall(r'<(?:input|button)[^>]* name="([^"]+)" value="([^"]*)"', text)}
    form.pop("deny", None)
    form.pop("remember", None)
    try:
        browser.open(urllib.parse.urljoin(url, "/authorize/consent"),
                     urllib.parse.urlencode(form).encode(), timeout=30)
    except urllib.error.HTTPError as stayed:
        assert stayed.code in (302, 303), stayed
    assert Stay.back, "the browser ends elsewhere"
    return Stay.back


if __name__ == "__main__":
    print(agree(sys.argv[1]))
