"""python -m docs.generate: writes every generated part anew and names the pages that changed."""

from __future__ import annotations

import sys

from docs.generate import cli, decisions, error_messages, oracles, reports, settings, templates

GENERATORS = (cli, decisions, error_messages, oracles, reports, settings, templates)


def main() -> None:
    """Write the pages whose text is not what it must be."""
    for generator in GENERATORS:
        for page, text in generator.pages().items():
            if page.read_text("utf-8") != text:
                page.write_text(text, "utf-8")
                sys.stdout.write(f"{page.name} changed\n")


if __name__ == "__main__":
    main()
