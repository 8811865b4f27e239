"""Hashes of texts, bytes and files, as hexadecimal digits."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


def hex_digest(*chunks: str | bytes | memoryview, size: int) -> str:
    """Hash of the concatenated chunks.

    Args:
        *chunks: Texts count as their UTF-8 bytes.
        size: Bytes of the hash, which has twice as many digits.
    """
    digest = hashlib.blake2b(digest_size=size)
    for chunk in chunks:
        digest.update(chunk.encode() if isinstance(chunk, str) else chunk)
    return digest.hexdigest()


def pieces_digest(pieces: Iterable[str | bytes], size: int = 12) -> str:
    """Hash of a list of pieces, each preceded by its length, so that different lists have different hashes.

    Args:
        pieces: Texts count as their UTF-8 bytes.
        size: Bytes of the hash, which has twice as many digits.
    """
    digest = hashlib.blake2b(digest_size=size)
    for piece in pieces:
        content = piece.encode() if isinstance(piece, str) else piece
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Hash of a file's bytes, which are read again only if the file system shows that the file has changed.

    Raises:
        OSError: it cannot be read.
    """
    about = path.stat()
    return _content_digest(path, (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))


@lru_cache(maxsize=256)
def _content_digest(path: Path, about: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
