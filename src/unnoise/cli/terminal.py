"""Output for any terminal: what its encoding lacks is written in ASCII."""

import codecs
import sys
import unicodedata

PLAIN = {"±": "+-", "×": "x", "→": "->", "–": "-", "−": "-", "·": "*", "≥": ">=", "≤": "<="}


def in_ascii(text: str) -> str:
    """Text with what is like it in ASCII, as e for é and alpha for α; ? for other letters."""
    parted = unicodedata.normalize("NFKD", "".join(PLAIN.get(each, each) for each in text))
    letters = "".join(_named(each) for each in parted if not unicodedata.combining(each))
    return letters.encode("ascii", "replace").decode()


def _named(letter: str) -> str:
    name = unicodedata.name(letter, "")
    return name.split()[-1].lower() if name.startswith("GREEK SMALL LETTER") else letter


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


def any_encoding() -> None:
    """Let nothing that is printed end the command, whatever the terminal's encoding."""
    codecs.register_error("unnoise", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="unnoise")


def undecoded(text: str) -> bool:
    """Whether Python could not decode an argument in the terminal's encoding."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)
