"""A report in one file, its pictures inside: for places that show a page without the files next to it."""

import base64
import mimetypes
import re
from pathlib import Path


def inlined(page: Path) -> bytes:
    """Return a page of this folder with the pictures it shows from next to it as data: URIs, each held once."""
    text = page.read_text(encoding="utf-8")
    names = list(dict.fromkeys(re.findall(r'<img src="([^":]+)"', text)))
    for name in names:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        content = base64.b64encode((page.parent / name).read_bytes()).decode("ascii")
        first, rest = f'<img src="{name}"', f'<img data-as="{name}"'
        text = text.replace(first, rest).replace(rest, f'<img id="{name}" src="data:{kind};base64,{content}"', 1)
    return text.replace("</body>", f"{_SHARE}</body>").encode()


#: A picture that is shown several times (a video's frames) is in the file once.
_SHARE = """<script>
"use strict";
for (const image of document.querySelectorAll("img[data-as]"))
  image.src = document.getElementById(image.dataset.as).src;
</script>
"""
