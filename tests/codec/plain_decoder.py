"""A second decoder, written from FORMAT.md alone: plain Python, slow, without checks.

It keeps the page honest and imports nothing of ours. Sections are numbered as on that page.
"""

import itertools
import json
import math
import struct


class Bytes:
    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        return self.take(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def f32(self, count):
        return list(struct.unpack(f"<{count}f", self.take(4 * count)))

    def rest(self):
        return self.take(len(self.data) - self.at)


class Bits:
    def __init__(self, data):
        self.text, self.at = "".join(f"{byte:08b}" for byte in data), 0

    def take(self, count):
        self.at += count
        return int(self.text[self.at - count : self.at] or "0", 2)

    def golomb(self, k):
        zeros = self.text.index("1", self.at) - self.at
        self.at += zeros
        return self.take(zeros + k + 1) - (1 << k)

    def signed(self, k):
        u = self.golomb(k)
        return u // 2 if u % 2 == 0 else -((u + 1) // 2)


class Stream:
    """Section 2."""

    def __init__(self, data, lanes):
        lanes = lanes if data else 0
        self.states = list(struct.unpack(f"<{lanes}I", data[: 4 * lanes]))
        words = data[4 * lanes :]
        self.words = list(struct.unpack(f"<{len(words) // 2}H", words))
        self.at = 0

    def segment(self, letters_of, precision):
        """``letters_of``: per symbol a list of (symbol, frequency) of its table."""
        result, lane = [], 0
        for letters in letters_of:
            if len(letters) == 1:
                result.append(letters[0][0])
                continue
            x = self.states[lane]
            s, c = x % (1 << precision), 0
            for letter, f in letters:
                if c <= s < c + f:
                    result.append(letter)
                    x = f * (x >> precision) + s - c
                    break
                c += f
            if x < 1 << 16:
                x = (x << 16) + self.words[self.at]
                self.at += 1
            self.states[lane] = x
            lane = (lane + 1) % len(self.states)
        return result

    def end(self):
        assert all(x == 1 << 16 for x in self.states)
        assert self.at == len(self.words)


def read_root(bits, expected):
    u = bits.golomb(max(0, expected.bit_length() - 2))
    if u > 2 * expected:
        return u
    return expected + u // 2 if u % 2 == 0 else expected - (u + 1) // 2


def roots_by_themselves(bits):
    minimum, n = bits.signed(2), bits.golomb(2) + 1
    roots, previous = [], 0
    while len(roots) < n:
        root = read_root(bits, previous)
        roots += [0] * (bits.golomb(1) + 1) if root == 0 else [root]
        previous = root
    return dict(enumerate(roots, minimum))


def roots_after(bits, above):
    minimum = min(above) + bits.signed(0)
    maximum = max(above) + bits.signed(0)
    roots, previous, symbol = {}, 0, minimum
    while symbol <= maximum:
        h, t = above.get(symbol, 0), above.get(symbol - 1, 0)
        if t == 0:
            x = (previous + h + 1) // 2
        else:
            x = min(1024, (h * (previous + 2) + (t + 2) // 2) // (t + 2))
        if symbol in (minimum, maximum):
            root = read_root(bits, max(0, x - 1)) + 1
        else:
            root = read_root(bits, x)
        run = bits.golomb(0) if root == x == 0 else 0
        for _ in range(1 + run):
            roots[symbol] = root
            symbol += 1
        previous = root
    return roots


def table(bits, p, above=None):
    """Section 3: a list of (symbol, frequency), and roots by symbol."""
    found = roots_by_themselves(bits) if above is None else roots_after(bits, above)
    minimum, roots, n = min(found), list(found.values()), len(found)
    weights = [(roots[i] - 1) ** 2 if roots[i] else 0 for i in range(n)]
    if not any(weights):
        weights = [1 if root else 0 for root in roots]
    spare, total = (1 << p) - sum(root > 0 for root in roots), sum(weights)
    freqs = [(root > 0) + w * spare // total for root, w in zip(roots, weights, strict=True)]
    freqs[freqs.index(max(freqs))] += (1 << p) - sum(freqs)
    return [(minimum + i, freqs[i]) for i in range(n)], found


def array(data, count):
    """Section 4."""
    if data.u8() == 0:
        minimum, width = data.varint() - 4095, data.u8()
        bits = Bits(data.take((count * width + 7) // 8))
        return [minimum + bits.take(width) for _ in range(count)]
    p, lanes, table_bytes, stream_bytes = data.u8(), data.varint(), data.varint(), data.varint()
    letters, _ = table(Bits(data.take(table_bytes)), p)
    stream = Stream(data.take(stream_bytes), lanes)
    values = stream.segment([letters] * count, p)
    stream.end()
    return values


def occupancy(data, dims):
    """Section 5: the side, and the set of occupied cells."""
    g, lanes = data.varint(), data.varint()
    stream = Stream(data.rest(), lanes)
    sides = [g]
    while sides[-1] > 8:
        sides.append((sides[-1] + 3) // 4)
    neighbours = [
        n for n in itertools.product((-1, 0, 1), repeat=dims) if tuple(reversed(n)) < (0,) * dims
    ]
    blocks = None
    for side in reversed(sides):
        occupied, seen, fronts = set(), {}, {}
        for cell in itertools.product(range(side), repeat=dims):
            if blocks is None or tuple(c // 4 for c in cell) in blocks:
                fronts.setdefault(sum(c << i for i, c in enumerate(cell)), []).append(cell)
        for front in sorted(fronts):
            patterns, letters = [], []
            for cell in fronts[front]:
                pattern = 0
                for n in neighbours:
                    other = tuple(c + i for c, i in zip(cell, n, strict=True))
                    pattern = 2 * pattern + (other in occupied)
                a, b = seen.get(pattern, (0, 0))
                f = min(max((5 * b + 2) * 65536 // (5 * (a + b) + 4), 1), 65535)
                patterns.append(pattern)
                letters.append([(0, 65536 - f), (1, f)])
            bits = stream.segment(letters, 16)
            for cell, pattern, bit in zip(fronts[front], patterns, bits, strict=True):
                a, b = seen.get(pattern, (0, 0))
                seen[pattern] = (a + 1 - bit, b + bit)
                if bit:
                    occupied.add(cell)
        blocks = occupied
    stream.end()
    return g, blocks


class Grid:
    """Section 6, what is known about entries."""

    def __init__(self, dims, levels, cells, channels, version):
        self.dims, self.levels = dims, levels
        self.channels, self.version = channels, version
        self.has_occupancy = cells is not None
        self.g, self.cells = cells if cells else (1, {(0,) * dims})

    def entry(self, level, v):
        n, t = self.levels[level]
        if n**self.dims <= t:
            return sum(c * n**i for i, c in enumerate(v)) % t
        index = 0
        for c, prime in zip(v, (1, 2654435761, 805459861), strict=False):
            index ^= c * prime % (1 << 32)
        return index % t

    def lo(self, c, n):
        return (2 * c * (n - 1) + self.g) // (2 * self.g)

    def crowded(self, level):
        n, t = self.levels[level]
        if n**self.dims <= t:
            return False
        walked = (n + 1) ** self.dims
        for other, (m, size) in enumerate(self.levels[:level]):
            if m**self.dims > size and not self.crowded(other):
                walked += (m + 1) ** self.dims
        if walked > 1 << 28:
            return True
        return self.load(level) > 24 * t

    def load(self, level):
        n = self.levels[level][0]
        spans = [self.lo(c + 1, n) - self.lo(c, n) + 2 for c in range(self.g)]
        return sum(math.prod(spans[c] for c in cell) for cell in self.cells)

    def described(self, level):
        if not self.crowded(level):
            return True
        if self.version == 1:
            return False
        n, t = self.levels[level]
        count = (n + 1) ** self.dims
        for other, (m, _) in enumerate(self.levels[:level]):
            if self.crowded(other) and self.described(other):
                count += (m + 1) ** self.dims
        return count <= 1 << 26 and self.load(level) <= 64 * t

    def has_neighbours(self, level):
        if self.version == 1 or not self.described(level):
            return False
        count = (self.levels[level][0] + 1) ** self.dims * self.channels
        for other, (m, _) in enumerate(self.levels[:level]):
            if self.has_neighbours(other):
                count += (m + 1) ** self.dims * self.channels
        return count <= 1 << 28

    def around(self, level, sizes):
        """The largest sum of sizes next to a touched vertex of each entry."""
        n, t = self.levels[level]
        found = [0] * t
        for v in self.supports(level):
            total = 0
            for axis in range(self.dims):
                for step in (-1, 1):
                    w = list(v)
                    w[axis] += step
                    if 0 <= w[axis] <= n:
                        total += sizes[self.entry(level, w)]
            e = self.entry(level, v)
            found[e] = max(found[e], total)
        return found

    def supports(self, level):
        n = self.levels[level][0]
        corners = list(itertools.product((0, 1), repeat=self.dims))
        touched, count = set(), {}
        for cell in self.cells:
            spans = [range(self.lo(c, n), self.lo(c + 1, n) + 1) for c in cell]
            touched |= set(itertools.product(*spans))
        for k in touched:
            for corner in corners:
                v = tuple(a + b for a, b in zip(k, corner, strict=True))
                count[v] = count.get(v, 0) + 1
        return count

    def features(self, level, levels):
        t = self.levels[level][1]
        support, magnitude, ancestry = [0] * t, [0] * t, [0] * t
        if not self.described(level):
            return support, magnitude, ancestry
        for v, number in self.supports(level).items():
            e = self.entry(level, v)
            support[e] = max(support[e], number)
            if level >= 1:
                magnitude[e] = max(magnitude[e], self.magnitude(level, v, level - 1, levels))
            if level >= 2 and self.version > 1:
                ancestry[e] = max(ancestry[e], self.magnitude(level, v, level - 2, levels))
        return support, magnitude, ancestry

    def magnitude(self, level, v, coarser, levels):
        n, m = self.levels[level][0], self.levels[coarser][0]
        p = [min(((2 * c - 1) * (m - 1) + n - 1) // (2 * (n - 1)), m - 1) for c in v]
        corners = itertools.product((0, 1), repeat=self.dims)
        at = [[a + b for a, b in zip(p, corner, strict=True)] for corner in corners]
        found = [levels[coarser][self.entry(coarser, vertex)] for vertex in at]
        return sum(min(31, sum(map(abs, symbols))) for symbols in found)


def level_symbols(data, grid, level, channels, levels):
    p, lanes, size = data.u8(), data.varint(), data.varint()
    bits, stream = Bits(data.take(size)), Stream(data.rest(), lanes)
    support, magnitude, ancestry = grid.features(level, levels)
    everything = grid.crowded(level) or not grid.has_occupancy
    entries = [e for e in range(grid.levels[level][1]) if everything or support[e]]
    rows = [[0] * channels for _ in support]
    for channel in range(channels):
        passes = [[0, 1]] if not bits.take(1) else [[0], [1]]
        for parities in passes:
            a, b, c, g = (bits.golomb(1) for _ in range(4))
            h, k = (bits.golomb(1) for _ in range(2)) if grid.version > 1 else (0, 0)
            around = None
            if k and parities == [1] and grid.has_neighbours(level):
                sizes = [min(31, abs(rows[e][channel])) for e in range(len(rows))]
                around = grid.around(level, sizes)
            r, u, thresholds, threshold = bits.take(2), bits.take(2), [], 0
            for _ in range(bits.take(4)):
                threshold += bits.golomb(4) + 1
                thresholds.append(threshold)
            num_classes = (len(thresholds) + 1) * (2 * r + 1) * (2 * u + 1)
            tables, above = [], None
            for _ in range(num_classes):
                letters_of, roots = table(bits, p, above) if bits.take(1) else (None, above)
                tables.append(letters_of)
                above = roots if grid.version > 2 else None
            chosen, letters = [e for e in entries if e % 2 in parities], []
            for e in chosen:
                earlier = rows[e][:channel]
                partner = rows[e ^ 1][channel] if parities == [1] else 0
                score = a * support[e] + b * magnitude[e] + c * min(31, sum(map(abs, earlier)))
                score += g * min(31, abs(partner)) + h * ancestry[e]
                score += k * around[e] if around else 0
                number = sum(t <= score for t in thresholds) * (2 * r + 1)
                if r:
                    number += r + min(max(earlier[-1], -r), r)
                number = number * (2 * u + 1) + u + min(max(partner, -u), u)
                letters.append(tables[number])
            if not any(tables):
                continue
            for e, symbol in zip(chosen, stream.segment(letters, p), strict=True):
                rows[e][channel] = symbol
    stream.end()
    return rows


def weights(data):
    result = {}
    for _ in range(data.varint()):
        name = data.take(data.u8()).decode()
        shape = [data.varint() for _ in range(data.u8())]
        mode = data.u8()
        steps = data.f32(shape[0] if mode == 1 else 1)
        steps = steps * shape[0] if mode == 2 else steps
        result[name] = {"steps": steps, "shape": shape, "values": array(data, math.prod(shape))}
    return result


def cameras(data, version):
    n, shared = data.varint(), data.u8()
    optics = [struct.unpack("<4f2I", data.take(24)) for _ in range(1 if shared else n)]
    poses = rotations if version > 2 and data.u8() else matrices
    return {"optics": optics * n if shared else optics, "poses": poses(data, n)}


def matrices(data, n):
    planes = [array(data, 12 * n) for _ in range(4)]
    elements = [struct.unpack("<f", bytes(plane[i] for plane in planes))[0] for i in range(12 * n)]
    return [elements[camera::n] for camera in range(n)]


def rotations(data, n):
    step, missing, poses = 2.0 ** (data.u8() - 40), array(data, n), []
    upper, lower = array(data, 6 * n), array(data, 6 * n)
    for camera in range(n):
        numbers = [256 * upper[i] + lower[i] - 32768 for i in range(camera, 6 * n, n)]
        q = [number / 46340 for number in numbers[:3]]
        rest = 46340**2 - sum(number * number for number in numbers[:3])
        q.insert(missing[camera], math.sqrt(rest) / 46340)
        (w, x, y, z), shift = q, [number * step for number in numbers[3:]]
        first = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), shift[0]]
        second = [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), shift[1]]
        third = [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), shift[2]]
        poses.append([*first, *second, *third])
    return [[struct.unpack("<f", struct.pack("<f", e))[0] for e in pose] for pose in poses]


def old_contents(data):
    """Section 10."""
    length = struct.unpack_from("<I", data, 8)[0]
    entries = struct.iter_unpack("<4sQQI", data[16 : 16 + length])
    return [(tag.decode(), data[offset : offset + size]) for tag, offset, size, _ in entries]


def contents(data):
    length = struct.unpack_from("<I", data, 8)[0]
    runs, offset, sections = Bytes(data[16 : 16 + length]), 16 + length, []
    while runs.at < length:
        tag = runs.take(4).decode()
        for _ in range(runs.varint()):
            size = runs.varint()
            runs.take(4)
            sections.append((tag, data[offset : offset + size]))
            offset += size
    return sections


def grid_pairs(payload, version):
    if version < 3:
        return list(struct.iter_unpack("<II", payload[3:]))
    data, pairs, n = Bytes(payload[3:]), [], 0
    for _ in range(payload[1]):
        n += data.varint()
        code, t = data.u8(), 0
        if code == 0:
            t = (n ** payload[0] + 7) // 8 * 8
        elif code < 255:
            t = 2**code
        else:
            t = data.varint()
        pairs.append((n, t))
    return pairs


def head(payload, version):
    if version < 3:
        return json.loads(payload)
    return {
        "kind": ["radiance_field", "image"][payload[0]],
        "num_levels_present": payload[1],
        "digest": payload[2:34].hex(),
        "architecture": json.loads(payload[34:]),
    }


def decode(data):
    """Everything in a file, as plain lists and dicts."""
    version, levels_found = data[4], []
    sections = contents(data) if version > 2 else old_contents(data)
    parts = dict(sections)
    levels = [payload for tag, payload in sections if tag == "LATN"]
    dims, num_levels, channels = parts["GRID"][:3]
    pairs = grid_pairs(parts["GRID"], version)
    cells = occupancy(Bytes(parts["OCCU"]), dims) if "OCCU" in parts else None
    grid, symbols = Grid(dims, pairs, cells, channels, version), []
    for level, payload in enumerate(levels):
        found = level_symbols(Bytes(payload), grid, level, channels, levels_found)
        levels_found.append(found)
        symbols += found
    for level in range(len(levels), num_levels):
        symbols += [[0] * channels for _ in range(pairs[level][1])]
    return {
        "head": head(parts["HEAD"], version),
        "symbols": symbols,
        "occupancy": cells,
        "weights": weights(Bytes(parts["WGTS"])),
        "cameras": cameras(Bytes(parts["cams"]), version) if "cams" in parts else None,
        "rendering": parts.get("RNDR"),
        "meta": json.loads(parts.get("meta", b"{}")),
        "prefix_psnr": struct.unpack(f"<{num_levels}H", parts["psnr"]) if "psnr" in parts else None,
    }
