"""Whether a file is all there, as far as that shows before it is decoded.

libsndfile reads as much as it finds and says nothing when that is less than there was. The checks here
raise ``AudioError`` without the name of the file, which whoever opens it puts in front.
"""

from __future__ import annotations

import io
import math
import re
import struct
from typing import IO, cast

from asr.audio.sources import AudioError, PatchedFile

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # hertz; a damaged rate would make seconds into days

# How the files begin of which a cut one can be told from a whole one. libsndfile knows more formats, but
# shortens a cut file of any of those without a word.
BEGINNINGS = {
    "WAV": rb"RIFF....WAVE",
    "OGG": rb"OggS",
    "FLAC": rb"fLaC",
    "AAC": rb"\xff[\xf0\xf1\xf8\xf9]|ADIF",  # ADTS; where these have no layer, MP3 has one
    "MP3": rb"ID3|\xff[\xe2-\xff]",
    "AIFF": rb"FORM....AIF[FC]",
    "AU": rb"\.snd",
    "NIST": rb"NIST_1A\n   1024\n",  # SPHERE, the format of many older speech corpora
    "MP4": rb"....ftyp",
    "MATROSKA": rb"\x1a\x45\xdf\xa3",
    "ASF": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
}


def recognise_format(file: IO[bytes]) -> str:
    """The key in ``BEGINNINGS`` that fits ``file``; raises ``AudioError`` when none does."""
    beginning = file.read(16)
    if not beginning:
        raise AudioError("is empty")
    if beginning[:3] == b"ID3":  # stands before MP3, and sometimes before AAC
        file.seek(measure_id3(beginning))
        behind = file.read(16)
        beginning = behind if re.match(BEGINNINGS["AAC"], behind) else beginning
    for kind, pattern in BEGINNINGS.items():
        if re.match(pattern, beginning, re.DOTALL):
            return kind
    raise AudioError(
        "is not audio in a format that can be read (WAV, FLAC, Ogg, Opus, MP3, AIFF, AU, SPHERE; "
        "m4a, aac, mp4, mkv, webm, wma)"
    )


def check_rate(rate: int) -> None:
    """Raise ``AudioError`` for hertz that no recording has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"is damaged: its sampling rate is {rate} Hz")


def check_wav(file: IO[bytes]) -> IO[bytes]:
    """Raise ``AudioError`` unless a WAV file holds its samples to the last one.

    Returns the file as libsndfile needs it. A program that writes into a pipe cannot go back to fill in how
    many bytes of samples follow. It leaves there the largest number, signed or not, often rounded down, or
    0; all mean "to the end". libsndfile does not know about the 0, so that it is shown the length instead.
    """
    size = file.seek(0, io.SEEK_END)
    place = 12
    for _ in range(1000):  # more chunks than any program writes; a file of zeros has millions
        file.seek(place)
        chunk, length = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
        place += 8
        if chunk == b"data" or place >= size:
            break
        place += length + length % 2
    is_from_pipe = 0x7FFF_0000 <= length <= 0x8000_0000 or length >= 0xFFFF_0000
    if chunk != b"data" or (place + length > size and not is_from_pipe):
        raise AudioError("is truncated: its header promises more than the file holds")
    file.seek(0)
    (riff_length,) = struct.unpack("<4xI", file.read(8))
    if length or place == size or 8 + riff_length == size:  # the last: whole, and nothing in it
        return file
    return cast(IO[bytes], PatchedFile(file, place - 4, struct.pack("<I", min(size - place, 0xFFFF_FFFF))))


def check_ogg(file: IO[bytes]) -> None:
    """Raise ``AudioError`` unless an Ogg file holds one stream to its end (RFC 3533, section 6)."""
    file.seek(0)
    first = file.read(27)
    tail = min(file.seek(0, io.SEEK_END), 1 << 17)  # a page has at most 65,307 bytes
    file.seek(-tail, io.SEEK_END)
    page = file.read(tail)
    page = page[max(0, page.rfind(b"OggS")) :]
    is_last = len(page) >= 27 and page[5] & 4
    if not is_last or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        raise AudioError("is truncated: its last page is not there to the end")
    if page[14:18] != first[14:18]:  # libsndfile would read only the first
        raise AudioError("holds several Ogg streams; convert it to WAV or FLAC")


def check_size(file: IO[bytes], kind: str) -> None:
    """Raise ``AudioError`` when an AIFF, AU or NIST file is shorter than its header states."""
    file.seek(0)
    header = file.read(1024)
    first, second = struct.unpack(">2I", header[4:12].ljust(8, b"\0"))
    if kind == "AIFF":
        size = 8 + first
    elif kind == "AU":
        size = first + (0 if second == 0xFFFF_FFFF else second)  # from a pipe: to the end
    else:
        sizes = re.findall(rb"(?:sample_count|channel_count|sample_n_bytes) -i (\d+)", header)
        size = 1024 + math.prod(map(int, sizes))
    if size > file.seek(0, io.SEEK_END):
        raise AudioError("is truncated: its header promises more than the file holds")


def has_frame_count(file: IO[bytes]) -> bool:
    """Whether an MP3 has a Xing (or Info) header in its first frame that tells how many there are."""
    file.seek(0)
    tag = file.read(10)
    file.seek(measure_id3(tag) if tag[:3] == b"ID3" else 0)
    header = re.search(rb"(?:Xing|Info)...(.)", file.read(64), re.DOTALL)
    return header is not None and bool(header[1][0] & 1)


def measure_id3(tag: bytes) -> int:
    """Bytes in the ID3 tag that begins with ``tag``; its length has seven bits a byte."""
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False))


def is_at_mp3_frame(file: IO[bytes]) -> bool:
    """Whether a frame of an MP3 begins where ``file`` stands; reads its first two bytes."""
    return re.match(rb"\xff[\xe2-\xff]", file.read(2)) is not None
