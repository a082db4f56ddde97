# SPDX-License-Identifier: MIT
"""Reads an esker database from its bytes, as docs/format.md describes them.

Nothing here was taken from the engine: it is a second reading of the same page, so that a
mistake in the page, in the engine or here shows as a difference. It only reads.

    base       hashes, unpacking, what is said about damage
    frames     the frames of which logs and manifests are made
    manifest   CURRENT, the manifest and the edits in it
    logs       log files, and the rules by which a log's end is found
    segments   sorted files
    database   a directory as a whole: every row of it, in order
"""
