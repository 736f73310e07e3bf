"""Broken files made of good ones: bytes changed, values of JSON and YAML exchanged, fields of pictures set wrong."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

#: Written as they are, because json.dumps would not write them.
RAW = {
    "@digits": "9" * 5000,
    "@deep": "[" * 100_000,
    "@closed": "[" * 2000 + "]" * 2000,
    "@deepmap": '{"a":' * 800 + "1" + "}" * 800,
    "@nan": "NaN",
    "@infinite": "-Infinity",
    "@overflow": "1e999",
    "@surrogate": '"\\ud800"',
    "@nul": '"a\\u0000b"',
    "@escape": '"\\u001b[2Jx\\n\\u009b31m"',
    "@twice": '{"a": 1, "a": 2}',
}
VALUES: tuple[Any, ...] = (
    *RAW,
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**30, 10**39, 1e308, -1e-308, 0.5, 1e9),
    *("", " ", "x", "a" * 100_000, "../../x", "/etc/passwd", "a/b", "a\\b", ".", "..", "é" * 300, "nan", "1"),
    *([], {}, [[]], [None], ["a"], [1, 2, 3], {"a": None}, {"": ""}, [[1]] * 50, {"size": [32, 48], "counts": "0"}),
    *(["a"] * 1000, list(range(1000)), "[red]b[/]", "[/x]", "\u202e\u2066", "$HOME", "~"),
)


def changed_bytes(content: bytes, random: Random) -> bytes:
    """Bytes cut, replaced, inserted, removed, doubled, or others altogether."""
    kind = random.randrange(8)
    place = random.randrange(len(content) + 1)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return (
            content[:place] + random.choice([b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"]", b'"']) + content[place:]
        )
    if kind == 2:
        return content[:place] + content[place + random.randrange(1, 20) :]
    if kind == 3:
        return content[:place] + content[random.randrange(len(content) + 1) :] + content[place:]
    if kind == 4 and random.random() < 0.3:
        texts = [b"", b"\0" * 100, b"[" * 100_000, b"\xef\xbb\xbf" + content, b"null", b"9" * 5000]
        other = content.decode("latin-1").encode(random.choice(["utf-16", "utf-32"]))
        return random.choice([*texts, other])
    changed = bytearray(content)
    for _ in range(random.randrange(1, 6)):
        if changed:
            changed[random.randrange(len(changed))] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
    return bytes(changed)


def changed_json(content: bytes, random: Random) -> bytes:
    """JSON in which a value or key, somewhere, is another, missing, or there in addition."""
    if random.random() < 0.2:
        return changed_bytes(content, random)
    return _written(_with_another(json.loads(content), random))


def changed_yaml(content: bytes, random: Random) -> bytes:
    """A config with another value, an anchor, alias, tag or sign of YAML somewhere, or other bytes."""
    kind = random.random()
    if kind < 0.4:
        import yaml

        return _written(_with_another(yaml.safe_load(content), random))
    if kind < 0.6:
        return changed_bytes(content, random)
    lines = content.decode().splitlines()
    pieces = [
        "&a [*a]",
        "*a",
        "!!int x",
        "!!python/object:os.system []",
        "? ",
        "- - - -",
        "|",
        ">-",
        "<<: {a: b}",
        "\t",
    ]
    pieces += ["[" * 5000, "{a: " * 500, '"\\0"', '"\\ud800"', "%YAML 9", "---", "...", "!!set {a}", "0x" + "f" * 5000]
    bomb = "z0: &z0 [1,1,1,1,1,1,1,1,1]"
    bomb += "".join(f"\nz{level}: &z{level} [{','.join([f'*z{level - 1}'] * 9)}]" for level in range(1, 9))
    place = random.randrange(len(lines) + 1)
    piece = random.choice([*pieces, bomb])
    if random.random() < 0.5 and place < len(lines):
        key, colon, _ = lines[place].partition(":")
        lines[place] = f"{key}{colon} {piece}"
    else:
        lines.insert(place, piece)
    return "\n".join(lines).encode()


def changed_png(content: bytes, random: Random) -> bytes:
    """A PNG with other sizes, depths, chunks, or bytes; checksums right for half of them."""
    if random.random() < 0.3:
        return changed_bytes(content, random)
    chunks = _chunks(content)
    kind = random.randrange(5)
    if kind == 0:
        header = bytearray(chunks[0][1])
        width = random.choice([0, 1, 2**15, 2**31 - 1, 2**32 - 1, 13_000])
        place = random.choice([0, 4])
        header[place : place + 4] = struct.pack(">I", width)
        chunks[0] = (b"IHDR", bytes(header))
    elif kind == 1:
        header = bytearray(chunks[0][1])
        header[random.randrange(8, 13)] = random.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
        chunks[0] = (b"IHDR", bytes(header))
    elif kind == 2:
        del chunks[random.randrange(len(chunks))]
    elif kind == 3:
        text = b"a\0\0" + zlib.compress(b"\0" * random.choice([10, 200_000_000]), 1)
        name = random.choice([b"zTXt", b"iCCP", b"iTXt", b"tRNS", b"PLTE", b"eXIf", b"acTL"])
        chunks.insert(random.randrange(1, len(chunks)), (name, text if name != b"PLTE" else b"\1" * 5))
    else:
        pixels = zlib.compress(bytes(random.randrange(256) for _ in range(50)) * random.choice([1, 100_000]))
        chunks = [(name, pixels if name == b"IDAT" else data) for name, data in chunks]
    return content[:8] + b"".join(_chunk(name, data) for name, data in chunks)


def changed_jpeg(content: bytes, random: Random) -> bytes:
    """A JPEG with another size in its header, or other bytes."""
    start = content.find(b"\xff\xc0")
    if random.random() < 0.3 and start > 0:
        size = struct.pack(">HH", random.choice([0, 1, 8, 65_535]), random.choice([0, 1, 8, 65_535]))
        return content[: start + 5] + size + content[start + 9 :]
    return changed_bytes(content, random)


def mutation_for(path: Path) -> Mutation:
    """How a file of this ending is best broken."""
    table: dict[str, Mutation] = {
        ".json": changed_json,
        ".yaml": changed_yaml,
        ".png": changed_png,
        ".jpg": changed_jpeg,
    }
    return table.get(path.suffix, changed_bytes)


def _with_another(content: Any, random: Random) -> Any:
    if isinstance(content, (dict, list)) and content and random.random() < 0.9:
        place = random.choice(list(content)) if isinstance(content, dict) else random.randrange(len(content))
        if random.random() < 0.15:
            return _without(content, place, random)
        content[place] = _with_another(content[place], random)
        return content
    return random.choice(VALUES)


def _without(content: Any, place: Any, random: Random) -> Any:
    value = content.pop(place)
    if isinstance(content, dict):
        if random.random() < 0.5:
            content[random.choice(["", "x", "\x1b[2J", "a" * 300, "../x", f"{place}/", f"{place}\u0301"])] = value
    elif random.random() < 0.5:
        content += [value, value]
    return content


def _written(content: Any) -> bytes:
    text = json.dumps(content, ensure_ascii=False)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode("utf-8", "surrogatepass")


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
