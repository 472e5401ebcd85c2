"""mdBook's preprocessor: links that lead out of the book (to code, to deploy/) are to files of the repository.

They go to DOCKET_REPOSITORY (such as https://git.example.com/docket/blob/main) if that is set, and are only text otherwise.
"""

import json
import os
import posixpath
import re
import sys

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((\.\./[^)\s]*)\)")


def inside(text, page, repository):
    """Links as they are in the book; what is code stays as it is."""

    def link(found):
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), found[2]))
        if target.startswith("docs/"):
            return found[0]
        return f"[{found[1]}]({repository}/{target})" if repository else found[1]

    parts = re.split(r"(^```.*?^```[^\n]*$)", text, flags=re.M | re.S)
    return "".join(part if i % 2 else LINK.sub(link, part) for i, part in enumerate(parts))


def walk(items, repository):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            if chapter["path"]:
                chapter["content"] = inside(chapter["content"], chapter["path"], repository)
            walk(chapter["sub_items"], repository)


if __name__ == "__main__":
    if sys.argv[1:2] == ["supports"]:
        sys.exit(0)
    _, book = json.load(sys.stdin)
    walk(book.get("items", book.get("sections", [])), os.environ.get("DOCKET_REPOSITORY", "").rstrip("/"))
    json.dump(book, sys.stdout)
