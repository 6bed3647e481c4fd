"""What a file is and whether it is all there, as far as that shows before it is decoded.

libsndfile reads as much as it finds and says nothing when that is less than there was, or when more follows.
``examine`` walks headers, pages and frames, and says which part of a file is to be read with what.
"""

from __future__ import annotations

import io
import math
import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from asr.audio.sources import AudioError

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # hertz; a damaged rate would make seconds into days

# How the files begin that can be read, by their content alone.
BEGINNINGS = {
    "WAV": rb"RIFF....WAVE",
    "OGG": rb"OggS",
    "FLAC": rb"fLaC",
    "AAC": rb"\xff[\xf0\xf1\xf8\xf9]|ADIF",  # ADTS; where these have no layer, MP3 has one
    "AIFF": rb"FORM....AIF[FC]",
    "AU": rb"\.snd",
    "NIST": rb"NIST_1A\n   1024\n",  # SPHERE, the format of many older speech corpora
    "MP4": rb"....(?:ftyp|moov|wide|mdat)",
    "MATROSKA": rb"\x1a\x45\xdf\xa3",
    "ASF": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "CAF": rb"caff\x00\x01",
    "W64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
    "RF64": rb"(?:RF64|BW64)....WAVE",
    "AVI": rb"RIFF....AVI ",
    "FLV": rb"FLV\x01",
    "TS": rb"\x47.{187}\x47.{187}\x47",
    "M2TS": rb".{4}\x47.{191}\x47.{191}\x47",
    "PS": rb"\x00\x00\x01\xba",
    "AMR": rb"#!AMR(?:-WB)?\n",
    "AC3": rb"\x0b\x77",
    "WAVPACK": rb"wvpk",
    "APE": rb"MAC ",
    "TTA": rb"TTA1",
    "VOC": rb"Creative Voice File",
    "SHORTEN": rb"ajkg",
    "DSF": rb"DSD ",
}
HTK_FEATURES = (
    "LPC", "LPREFC", "LPCEPSTRA", "LPDELCEP", "IREFC", "MFCC", "FBANK", "MELSPEC", "USER", "DISCRETE", "PLP",
)  # fmt: skip
HEAD_BYTES = 1 << 10
JUNK_BYTES = 1 << 17  # in front of an MP3, in which its first frame is looked for
MOST_PAGES = 10_000_000  # of an Ogg file; far more than a day has

# What WAV files hold besides plain samples (Microsoft's mmreg.h) and libsndfile reads.
SOUNDFILE_WAV_TAGS = (0x0001, 0x0002, 0x0003, 0x0006, 0x0007, 0x0011, 0x0031)
EXTENSIBLE = 0xFFFE
# What a size counts too much where a writer takes the size of the file, or that of the RIFF chunk, for it.
HEADER_SIZES = (8, 36, 44)


@dataclass(frozen=True)
class Part:
    """Bytes ``begin`` to ``end`` of a file that a reader is given, from ``place`` of it on ``new`` ones."""

    begin: int
    end: int
    place: int = 0
    new: bytes = b""


@dataclass(frozen=True)
class Examination:
    """What ``examine`` found: the kind of a file, what of it to read, and what is wrong with it.

    Several ``parts`` are recordings one behind the other. ``needs_media``: libsndfile would not read it, or
    not all of it. ``faults`` tell what is missing, ``notes`` what may be.
    """

    kind: str
    parts: tuple[Part, ...]
    needs_media: bool = False
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    codec: str = ""  # as far as it is known and matters


def examine(file: IO[bytes], name: str | None = None) -> Examination:
    """Find out what ``file`` is; raises ``AudioError`` when it is nothing that can be read.

    Its content decides; only G.722, which is bits without a header, goes by the end of the ``name``. Messages
    leave out the name of the file, which whoever opens it puts in front.
    """
    if not read_at(file, 0, 1):  # first, because what cannot be read may have no end to seek
        raise AudioError("is empty")
    size = file.seek(0, io.SEEK_END)
    begin = skip_tags(file)
    head = read_at(file, begin, HEAD_BYTES)
    kind = next((kind for kind, start in BEGINNINGS.items() if re.match(start, head, re.DOTALL)), None)
    if kind is None and (htk := examine_htk(head, begin, size)):
        return htk
    if kind is None and name is not None and name.lower().endswith(".g722"):
        return Examination("G722", (Part(0, size),), needs_media=True)
    if kind is None:
        frame = find_mp3_frame(file, begin)
        if frame is None:
            raise AudioError(
                "is not audio in a format that can be read (WAV, FLAC, Ogg, Opus, MP3, AIFF, AU, SPHERE, "
                "CAF, m4a, aac, mp4, mkv, webm, wma, avi, flv, ts, amr, ac3 and others)"
            )
        kind, begin = "MP3", frame
    if kind == "WAV":
        return examine_wav(file, begin, size)
    if kind == "OGG":
        return examine_ogg(file, begin, size)
    if kind == "FLAC":
        return examine_flac(file, begin, measure_end(file, size))
    if kind == "MP3":
        end = measure_end(file, size)
        return Examination(kind, (Part(begin, end),), needs_media=not has_right_count(file, begin, end))
    whole = (Part(begin, size),)
    if kind == "NIST" and (coding := re.search(rb"sample_coding -s\d+ (\S*shorten\S*)", head)):
        name = coding[1].decode("ascii", "replace")
        raise AudioError(
            f"is SPHERE with samples packed by shorten ({name}); unpack it with sph2pipe or w_decode"
        )
    if kind in ("AIFF", "AU", "NIST"):
        return Examination(kind, whole, faults=check_size(head, kind, size - begin))
    return Examination(kind, whole, needs_media=True)


def check_rate(rate: int) -> None:
    """Raise ``AudioError`` for hertz that no recording has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"is damaged: its sampling rate is {rate} Hz")


def read_at(file: IO[bytes], place: int, size: int) -> bytes:
    """The bytes from ``place`` on, fewer at the end."""
    file.seek(place)
    content = b""
    while len(content) < size and (more := file.read(size - len(content))):
        content += more
    return content


# --- tags -----------------------------------------------------------------------------------------


def skip_tags(file: IO[bytes]) -> int:
    """Where the sound begins behind ID3 tags."""
    place = 0
    for _ in range(100):
        tag = read_at(file, place, 10)
        if tag[:3] != b"ID3" or len(tag) < 10:
            break
        place += measure_id3(tag)
    return place


def measure_id3(tag: bytes) -> int:
    """Bytes in the ID3 tag that begins with ``tag``; its length has seven bits a byte."""
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False))


def measure_end(file: IO[bytes], size: int) -> int:
    """Where the sound ends before ID3v1 and APE tags."""
    for _ in range(10):
        if size >= 128 and read_at(file, size - 128, 3) == b"TAG":
            size -= 128
            continue
        footer = read_at(file, size - 32, 32) if size >= 32 else b""
        if footer[:8] != b"APETAGEX":
            break
        length, flags = struct.unpack("<I4xI", footer[12:24])
        size = max(0, size - length - (32 if flags >> 31 else 0))
    return size


# --- WAV ------------------------------------------------------------------------------------------


def examine_wav(file: IO[bytes], begin: int, size: int) -> Examination:
    """Walk the chunks of a WAV file, and of those that are joined to it.

    A program that writes into a pipe cannot go back to fill in how many bytes of samples follow. It leaves
    there the largest number, signed or not, often rounded down, or 0; all mean "to the end".
    """
    parts: list[Part] = []
    faults: list[str] = []
    codec, needs_media = "", False
    while begin < size:
        place, length, tag, bytes_a_second = find_wav_samples(file, begin, size)
        if place is None:
            if parts:
                break
            raise AudioError("is truncated: its header promises more than the file holds")
        codec, needs_media = f"0x{tag:04x}", needs_media or tag not in SOUNDFILE_WAV_TAGS
        there = size - place
        (riff_length,) = struct.unpack("<4xI", read_at(file, begin, 8))
        is_from_pipe = 0x7FFF_0000 <= length <= 0x8000_0000 or length >= 0xFFFF_0000
        counts_header = length - there in (*HEADER_SIZES, place - begin, place - begin - 8)
        new = b""
        end = place + length + length % 2
        if is_from_pipe or (counts_header and length > there):
            end, new = size, struct.pack("<I", min(there, 0xFFFF_FFFF)) if counts_header else b""
        elif not length and there and begin + 8 + riff_length != size:
            end, new = size, struct.pack("<I", min(there, 0xFFFF_FFFF))
        elif length > there:
            end = size
            faults.append(describe_missing(there, length, bytes_a_second))
        following = read_at(file, end, 12)
        is_joined = re.match(BEGINNINGS["WAV"], following, re.DOTALL) is not None
        parts.append(Part(begin, end if is_joined else size, place - 4 - begin if new else 0, new))
        begin = end if is_joined else size
    return Examination("WAV", tuple(parts), needs_media, tuple(faults), codec=codec)


def find_wav_samples(file: IO[bytes], begin: int, size: int) -> tuple[int | None, int, int, int]:
    """Where the samples of a WAV file begin, how many bytes there should be, their format, bytes a second."""
    place, tag, bytes_a_second = begin + 12, 1, 0
    for _ in range(1000):  # more chunks than any program writes; a file of zeros has millions
        chunk, length = struct.unpack("<4sI", read_at(file, place, 8).ljust(8, b"\0"))
        place += 8
        if chunk == b"data" and place <= size:
            return place, length, tag, bytes_a_second
        if chunk == b"fmt ":
            layout = read_at(file, place, 26).ljust(26, b"\0")
            tag, bytes_a_second = struct.unpack("<H6xI", layout[:12])
            tag = struct.unpack("<H", layout[24:26])[0] if tag == EXTENSIBLE else tag
        place += length + length % 2
        if place >= size:
            break
    return None, 0, 0, 0


def describe_missing(there: int, length: int, bytes_a_second: int) -> str:
    """Say how much of the samples is there, in seconds where the header tells how many bytes these take."""
    if not 0 < bytes_a_second < 1 << 30:
        return "is truncated: its header promises more than the file holds"
    seconds, promised = max(there, 0) / bytes_a_second, length / bytes_a_second
    return f"is truncated: {seconds:.2f} of {promised:.2f} seconds are there"


# --- Ogg ------------------------------------------------------------------------------------------


@dataclass
class OggLink:
    """One stream of an Ogg file: where it begins, where its last whole page is and where that ends."""

    begin: int
    last: int = 0
    end: int = 0
    is_mixed: bool = False
    is_ended: bool = False


def examine_ogg(file: IO[bytes], begin: int, size: int) -> Examination:
    """Walk the pages of an Ogg file (RFC 3533, section 6): streams behind each other, lost and cut pages.

    libsndfile wants a mark at the end of the last page, which is put there where it is missing.
    """
    links = [OggLink(begin)]
    numbers: dict[int, int | None] = {}  # of the next page of each stream
    ended: set[int] = set()
    lost, place, is_begun, is_cut = 0, begin, False, False
    for _ in range(MOST_PAGES):
        header = read_at(file, place, 27 + 255)
        segments = header[27 : 27 + header[26]] if len(header) >= 27 else b""
        if header[:4] != b"OggS" or len(header) < 27 or len(segments) < header[26]:
            found = find_bytes(file, b"OggS", place + 1, size)
            if found is None:  # the end, or something else that follows: a tag
                is_cut = is_cut or (header[:4] == b"OggS"[: len(header)] and bool(header))
                break
            lost, place, numbers = lost + 1, found, dict.fromkeys(numbers)
            continue
        end = place + 27 + len(segments) + sum(segments)
        if end > size:
            is_cut = True
            break
        serial, number = struct.unpack("<2I", header[14:22])
        if header[5] & 2 and is_begun:
            links.append(OggLink(place))
            numbers, ended, is_begun = {}, set(), False
        elif header[5] & 2:
            links[-1].is_mixed = bool(numbers)
        else:
            is_begun = True
            lost += numbers.get(serial) not in (None, number)
        numbers[serial] = number + 1
        ended |= {serial} if header[5] & 4 else set()
        links[-1].last, links[-1].end, links[-1].is_ended = place, end, set(numbers) <= ended
        place = end
    faults, notes = [], []
    if is_cut or not links[-1].end:
        faults.append("is truncated: its last page is not there to the end")
    elif not links[-1].is_ended:
        notes.append("has no mark at its end: if it was cut off between two pages, something is missing")
    if lost:
        faults.append(f"is damaged: pages are missing in {lost} place{'' if lost == 1 else 's'}")
    page = read_at(file, begin, 27 + 255 + 16)
    codec = page[27 + page[26] :][:8] if len(page) > 27 else b""
    is_known = codec.startswith((b"OpusHead", b"\x01vorbis"))
    needs_media = lost > 0 or not is_known or any(link.is_mixed for link in links)
    parts = tuple(make_ogg_part(file, link) for link in links if link.end)
    return Examination("OGG", parts or (Part(begin, size),), needs_media, tuple(faults), tuple(notes))


def make_ogg_part(file: IO[bytes], link: OggLink) -> Part:
    """The pages of one stream, the last of them with a mark that it is the last."""
    if link.is_ended or link.is_mixed:
        return Part(link.begin, link.end)
    page = bytearray(read_at(file, link.last, link.end - link.last))
    page[5] |= 4
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", compute_ogg_checksum(page))
    return Part(link.begin, link.end, link.last - link.begin, bytes(page[:27]))


def compute_ogg_checksum(page: bytes | bytearray) -> int:
    """The checksum of a page whose own is 0: polynomial 0x04c11db7, not reflected (RFC 3533, section 6)."""
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C1_1DB7 if value & 0x8000_0000 else 0)
        table.append(value & 0xFFFF_FFFF)
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFF_FFFF) ^ table[value >> 24 ^ byte]
    return value


def find_bytes(file: IO[bytes], wanted: bytes, begin: int, end: int) -> int | None:
    """The first place of ``wanted`` from ``begin`` on."""
    step = 1 << 20
    while begin < end:
        content = read_at(file, begin, step + len(wanted) - 1)
        if (found := content.find(wanted)) >= 0:
            return begin + found
        begin += step
    return None


# --- FLAC and MP3 ---------------------------------------------------------------------------------


def examine_flac(file: IO[bytes], begin: int, end: int) -> Examination:
    """Find the files that are joined in a FLAC file: libsndfile reads the first."""
    begins = [begin]
    header = b"fLaC\0\0\0\x22"  # STREAMINFO comes first and has 34 bytes
    while (found := find_bytes(file, header, begins[-1] + len(header), end)) is not None and len(
        begins
    ) < 1000:
        begins.append(found)
    edges = [*begins, end]
    return Examination("FLAC", tuple(Part(first, last) for first, last in pairwise(edges)))


def measure_mp3_frame(header: bytes) -> int:
    """Bytes in the MPEG audio frame that begins with ``header``, 0 where none does (ISO 11172-3, 2.4.2.3)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bits, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or not 0 < bits < 15 or rate == 3:
        return 0
    if version == 3:
        table = {
            1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
            2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
            3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        }[layer]
    elif layer == 1:
        table = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
    else:
        table = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    hertz = (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    if layer == 1:
        return (12000 * table[bits - 1] // hertz + padding) * 4
    slots = 72000 if layer == 3 and version != 3 else 144000
    return slots * table[bits - 1] // hertz + padding


def find_mp3_frame(file: IO[bytes], begin: int) -> int | None:
    """Where three MPEG audio frames follow each other, or two to the end; junk in front is passed over."""
    content = read_at(file, begin, JUNK_BYTES + (1 << 14))
    for match in re.finditer(rb"\xff[\xe2-\xff]", content[:JUNK_BYTES]):
        place, frames = match.start(), 0
        while frames < 3 and (length := measure_mp3_frame(content[place : place + 4])):
            place, frames = place + length, frames + 1
        is_at_end = frames > 0 and place >= len(content)
        if frames == 3 or (is_at_end and (frames > 1 or not match.start())):
            return begin + match.start()
    return None


def has_right_count(file: IO[bytes], begin: int, end: int) -> bool:
    """Whether an MP3 has a Xing (or Info) header in its first frame, and its bytes are those of the file.

    Without one libsndfile guesses the length from the first frame; what follows behind it is lost.
    """
    head = read_at(file, begin, 256)
    header = re.search(rb"(?:Xing|Info)...(.)(.{8})", head, re.DOTALL)
    if header is None or header[1][0] & 3 != 3:
        return False
    (size,) = struct.unpack(">4xI", header[2])
    return end - begin <= size + measure_mp3_frame(head) + 16


def examine_htk(head: bytes, begin: int, size: int) -> Examination | None:
    """Recognise a file of HTK by its header: how many samples, their period in 100 ns, their bytes and kind.

    ``None`` where it is none (Young et al., The HTK Book 3.4, section 5.10.1); raises ``AudioError`` where it
    holds features.
    """
    if len(head) < 12:
        return None
    count, period, width, kind = struct.unpack(">iihH", head[:12])
    promised, there = count * width, size - begin - 12
    if count <= 0 or period <= 0 or width <= 0:
        return None
    base = kind & 0x3F
    if 0 < base <= len(HTK_FEATURES) and width % 2 == 0 and promised == there:
        raise AudioError(f"is an HTK file of features ({HTK_FEATURES[base - 1]}), not of sound")
    if kind or width != 2 or not LOWEST_RATE <= 10_000_000 / period <= HIGHEST_RATE or there < 2:
        return None
    if promised == there:
        return Examination("HTK", (Part(begin, size),))
    if promised < there:
        return None
    whole = Part(begin, begin + 12 + there // 2 * 2, 0, struct.pack(">i", there // 2))
    return Examination("HTK", (whole,), faults=(f"is truncated: {there / promised:.0%} of it is there",))


def check_size(head: bytes, kind: str, size: int) -> tuple[str, ...]:
    """What is missing of an AIFF, AU or NIST file by its header."""
    first, second = struct.unpack(">2I", head[4:12].ljust(8, b"\0"))
    if kind == "AIFF":
        promised = 8 + first
    elif kind == "AU":
        promised = first + (0 if second == 0xFFFF_FFFF else second)  # from a pipe: to the end
    else:
        sizes = re.findall(rb"(?:sample_count|channel_count|sample_n_bytes) -i (\d{1,12})", head)
        promised = 1024 + math.prod(map(int, sizes))
    if promised <= size:
        return ()
    return (f"is truncated: {size / max(promised, 1):.0%} of it is there",)
