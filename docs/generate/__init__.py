"""Writes the parts of the documentation that come from the source: `make generate`, or `python -m docs.generate`.

Each module here has `pages()`, which maps a page to its text as it must be. A test compares them with the files.
"""
