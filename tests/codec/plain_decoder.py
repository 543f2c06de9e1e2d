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

    def segment(self, tables, precision):
        """``tables``: per symbol a list of (symbol, frequency)."""
        result, lane = [], 0
        for freqs in tables:
            if len(freqs) == 1:
                result.append(freqs[0][0])
                continue
            x = self.states[lane]
            s, c = x % (1 << precision), 0
            for symbol, f in freqs:
                if c <= s < c + f:
                    result.append(symbol)
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


def read_sqrt_freq(bits, expected):
    u = bits.golomb(max(0, expected.bit_length() - 2))
    if u > 2 * expected:
        return u
    return expected + u // 2 if u % 2 == 0 else expected - (u + 1) // 2


def sqrt_freqs_alone(bits):
    minimum, n = bits.signed(2), bits.golomb(2) + 1
    values, previous = [], 0
    while len(values) < n:
        r = read_sqrt_freq(bits, previous)
        values += [0] * (bits.golomb(1) + 1) if r == 0 else [r]
        previous = r
    return dict(enumerate(values, minimum))


def sqrt_freqs_after(bits, before):
    minimum = min(before) + bits.signed(0)
    maximum = max(before) + bits.signed(0)
    values, previous, symbol = {}, 0, minimum
    while symbol <= maximum:
        h, t = before.get(symbol, 0), before.get(symbol - 1, 0)
        if t == 0:
            x = (previous + h + 1) // 2
        else:
            x = min(1024, (h * (previous + 2) + (t + 2) // 2) // (t + 2))
        if symbol in (minimum, maximum):
            r = read_sqrt_freq(bits, max(0, x - 1)) + 1
        else:
            r = read_sqrt_freq(bits, x)
        run = bits.golomb(0) if r == x == 0 else 0
        for _ in range(1 + run):
            values[symbol] = r
            symbol += 1
        previous = r
    return values


def table(bits, p, before=None):
    """Section 3: a list of (symbol, frequency), and sqrt_freqs by symbol."""
    found = sqrt_freqs_alone(bits) if before is None else sqrt_freqs_after(bits, before)
    weights = [(r - 1) ** 2 if r else 0 for r in found.values()]
    if not any(weights):
        weights = [1 if r else 0 for r in found.values()]
    spare, total = (1 << p) - sum(r > 0 for r in found.values()), sum(weights)
    freqs = [(r > 0) + w * spare // total for r, w in zip(found.values(), weights, strict=True)]
    freqs[freqs.index(max(freqs))] += (1 << p) - sum(freqs)
    return list(zip(found, freqs, strict=True)), found


def array(data, count):
    """Section 4."""
    if data.u8() == 0:
        minimum, width = data.varint() - 4095, data.u8()
        bits = Bits(data.take((count * width + 7) // 8))
        return [minimum + bits.take(width) for _ in range(count)]
    p, lanes, table_bytes, stream_bytes = data.u8(), data.varint(), data.varint(), data.varint()
    freqs, _ = table(Bits(data.take(table_bytes)), p)
    stream = Stream(data.take(stream_bytes), lanes)
    values = stream.segment([freqs] * count, p)
    stream.end()
    return values


def occupancy(data, dims):
    """Section 5: cells per axis, and the set of occupied cells."""
    g = data.varint()
    shape = (g,) * dims if g else tuple(data.varint() for _ in range(dims))
    lanes = data.varint()
    stream = Stream(data.rest(), lanes)
    shapes = [shape]
    while max(shapes[-1]) > 8:
        shapes.append(tuple((g + 3) // 4 for g in shapes[-1]))
    neighbours = [
        n for n in itertools.product((-1, 0, 1), repeat=dims) if tuple(reversed(n)) < (0,) * dims
    ]
    blocks = None
    for sides in reversed(shapes):
        occupied, seen, wavefronts = set(), {}, {}
        for cell in itertools.product(*map(range, sides)):
            if blocks is None or tuple(c // 4 for c in cell) in blocks:
                wavefronts.setdefault(sum(c << i for i, c in enumerate(cell)), []).append(cell)
        for number in sorted(wavefronts):
            cells, patterns, tables = wavefronts[number], [], []
            for cell in cells:
                pattern = 0
                for n in neighbours:
                    other = tuple(c + i for c, i in zip(cell, n, strict=True))
                    pattern = 2 * pattern + (other in occupied)
                a, b = seen.get(pattern, (0, 0))
                f = min(max((5 * b + 2) * 65536 // (5 * (a + b) + 4), 1), 65535)
                patterns.append(pattern)
                tables.append([(0, 65536 - f), (1, f)])
            bits = stream.segment(tables, 16)
            for cell, pattern, bit in zip(cells, patterns, bits, strict=True):
                a, b = seen.get(pattern, (0, 0))
                seen[pattern] = (a + 1 - bit, b + bit)
                if bit:
                    occupied.add(cell)
        blocks = occupied
    stream.end()
    return shape, blocks


class Level:
    """Section 6: one level, which knows the coarser ones."""

    def __init__(self, resolutions, size, cells, channels, coarser):
        self.n, self.t, self.dims, self.coarser = resolutions, size, len(resolutions), coarser
        self.is_dense = math.prod(resolutions) <= size
        self.g, self.cells = cells if cells else ((1,) * self.dims, {(0,) * self.dims})
        self.has_occupancy = cells is not None
        self.vertices = math.prod(n + 1 for n in resolutions)
        load, before = self.load(), list(coarser)

        def together(kind):
            return self.vertices + sum(level.vertices for level in before if kind(level))

        self.is_saturated = not self.is_dense and (
            load > 24 * size
            or together(lambda level: not level.is_dense and not level.is_saturated) > 1 << 28
        )
        self.has_features = not self.is_saturated or (
            load <= 64 * size
            and together(lambda level: level.is_saturated and level.has_features) <= 1 << 26
        )
        counted = together(lambda level: level.has_neighbours) * channels
        self.has_neighbours = self.has_features and counted <= 1 << 28

    def entry(self, v):
        if self.is_dense:
            return sum(c * math.prod(self.n[:axis]) for axis, c in enumerate(v)) % self.t
        index = 0
        for c, prime in zip(v, (1, 2654435761, 805459861), strict=False):
            index ^= c * prime % (1 << 32)
        return index % self.t

    def lo(self, axis, c):
        n, g = self.n[axis], self.g[axis]
        return (2 * c * (n - 1) + g) // (2 * g)

    def load(self):
        spans = [
            [self.lo(axis, c + 1) - self.lo(axis, c) + 2 for c in range(g)]
            for axis, g in enumerate(self.g)
        ]
        return sum(math.prod(spans[axis][c] for axis, c in enumerate(cell)) for cell in self.cells)

    def touched_cells(self):
        """By vertex: how many touched cells have it as a corner."""
        touched, count = set(), {}
        for cell in self.cells:
            spans = [
                range(self.lo(axis, c), self.lo(axis, c + 1) + 1) for axis, c in enumerate(cell)
            ]
            touched |= set(itertools.product(*spans))
        for cell in touched:
            for v in itertools.product(*((c, c + 1) for c in cell)):
                count[v] = count.get(v, 0) + 1
        return count

    def neighbour_magnitudes(self, sizes):
        found = [0] * self.t
        for v in self.touched_cells():
            total = 0
            for axis in range(self.dims):
                for step in (-1, 1):
                    w = list(v)
                    w[axis] += step
                    if 0 <= w[axis] <= self.n[axis]:
                        total += sizes[self.entry(w)]
            e = self.entry(v)
            found[e] = max(found[e], total)
        return found

    def features(self):
        """Touched cells, parent magnitudes and grandparent magnitudes by entry."""
        found = [[0] * self.t for _ in range(3)]
        for v, number in self.touched_cells().items() if self.has_features else ():
            values = [number] + [self.magnitude(v, level) for level in self.coarser[-1:-3:-1]]
            e = self.entry(v)
            for feature, value in zip(found, values, strict=False):
                feature[e] = max(feature[e], value)
        return found

    def magnitude(self, v, coarser):
        corners = []
        for c, n, m in zip(v, self.n, coarser.n, strict=True):
            parent = min(((2 * c - 1) * (m - 1) + n - 1) // (2 * (n - 1)), m - 1)
            corners.append((parent, parent + 1))
        found = [coarser.symbols[coarser.entry(w)] for w in itertools.product(*corners)]
        return sum(min(31, sum(map(abs, symbols))) for symbols in found)

    def decode(self, data, channels):
        p, lanes, size = data.u8(), data.varint(), data.varint()
        bits, stream = Bits(data.take(size)), Stream(data.rest(), lanes)
        features = self.features()
        everything = self.is_saturated or not self.has_occupancy
        entries = [e for e in range(self.t) if everything or features[0][e]]
        rows = self.symbols = [[0] * channels for _ in range(self.t)]
        for channel in range(channels):
            for parities in [[0, 1]] if not bits.take(1) else [[0], [1]]:
                model, tables = context_model(bits, p)
                neighbours = [0] * self.t
                if model["w"][5] and self.has_neighbours:
                    neighbours = self.neighbour_magnitudes([min(31, abs(q[channel])) for q in rows])
                chosen, wanted = [e for e in entries if e % 2 in parities], []
                for e in chosen:
                    partner = rows[e ^ 1][channel] if parities == [1] else 0
                    of_entry = [feature[e] for feature in (*features, neighbours)]
                    wanted.append(tables[class_of(model, of_entry, rows[e][:channel], partner)])
                if any(tables):
                    for e, symbol in zip(chosen, stream.segment(wanted, p), strict=True):
                        rows[e][channel] = symbol
        stream.end()


def context_model(bits, p):
    w = [bits.golomb(1) for _ in range(6)]
    r, u, thresholds, threshold = bits.take(2), bits.take(2), [], 0
    for _ in range(bits.take(4)):
        threshold += bits.golomb(4) + 1
        thresholds.append(threshold)
    tables, before = [], None
    for _ in range((len(thresholds) + 1) * (2 * r + 1) * (2 * u + 1)):
        freqs, before = table(bits, p, before) if bits.take(1) else (None, before)
        tables.append(freqs)
    return {"w": w, "r": r, "u": u, "thresholds": thresholds}, tables


def class_of(model, features, earlier, partner):
    touched, parent, grandparent, neighbours = features
    r, u = model["r"], model["u"]
    values = touched, parent, min(31, sum(map(abs, earlier))), min(31, abs(partner))
    values = *values, grandparent, neighbours
    score = sum(w * value for w, value in zip(model["w"], values, strict=True))
    q = earlier[-1] if earlier else 0
    number = sum(t <= score for t in model["thresholds"]) * (2 * r + 1) + r + min(max(q, -r), r)
    return number * (2 * u + 1) + u + min(max(partner, -u), u)


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


def cameras(data):
    n, shared = data.varint(), data.u8()
    optics = [struct.unpack("<4f2I", data.take(24)) for _ in range(1 if shared else n)]
    poses = rotations if data.u8() else matrices
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


def grid(data):
    shape, num_levels, channels = data.u8(), data.u8(), data.u8()
    dims, levels = shape % 128, []
    n = [0] * dims
    for _ in range(num_levels):
        steps = [data.varint() for _ in range(dims)] if shape > 127 else [data.varint()] * dims
        n = [before + step for before, step in zip(n, steps, strict=True)]
        code = data.u8()
        if code == 0:
            t = (math.prod(n) + 7) // 8 * 8
        else:
            t = 2**code if code < 255 else data.varint()
        levels.append((tuple(n), t))
    return dims, channels, levels


def head(payload):
    return {
        "kind": ["radiance_field", "image", "video"][payload[0]],
        "num_levels_present": payload[1],
        "digest": payload[2:34].hex(),
        "architecture": json.loads(payload[34:]),
    }


def decode(data):
    """Everything in a file, as plain lists and dicts."""
    sections = contents(data)
    parts = dict(sections)
    payloads = [payload for tag, payload in sections if tag == "LATN"]
    dims, channels, sizes = grid(Bytes(parts["GRID"]))
    cells = occupancy(Bytes(parts["OCCU"]), dims) if "OCCU" in parts else None
    levels, symbols = [], []
    for (n, t), payload in zip(sizes, payloads, strict=False):
        level = Level(n, t, cells, channels, levels)
        level.decode(Bytes(payload), channels)
        levels = [*levels, level]
        symbols += level.symbols
    for _, t in sizes[len(payloads) :]:
        symbols += [[0] * channels for _ in range(t)]
    psnr = parts.get("psnr")
    return {
        "head": head(parts["HEAD"]),
        "levels": sizes,
        "symbols": symbols,
        "occupancy": cells,
        "weights": weights(Bytes(parts["WGTS"])),
        "cameras": cameras(Bytes(parts["cams"])) if "cams" in parts else None,
        "rendering": parts.get("RNDR"),
        "meta": json.loads(parts.get("meta", b"{}")),
        "prefix_psnr": struct.unpack(f"<{len(sizes)}H", psnr) if psnr else None,
    }


def along(begin, end, count, length, vertices):
    """Section 10: lower vertex and fraction of each pixel along an axis."""
    result = []
    for i in range(count):
        p, m = 2 * begin * count + (2 * i + 1) * (end - begin), 2 * count * length
        result.append(divmod(2 * p * (vertices - 1) + m, 2 * m))
    return [(v, rest * 4096 // (4 * count * length)) for v, rest in result]


def pixels(data, spans):
    """Section 10: by coordinates (x, y) or (x, y, t) of a part, the channels of its pixels.

    Args:
        spans: Begin, end and number of pixels along each axis.
    """
    found = decode(data)
    architecture, dims = found["head"]["architecture"], len(spans)
    lengths = [architecture[name] for name in ("width", "height", "frames")[:dims]]
    result = {}
    for place in itertools.product(*(range(count) for _, _, count in spans)):
        x, first = [], 0
        for n, t in found["levels"]:
            level = Level(n, t, None, 1, [])
            corner = [
                along(*span, length, vertices)[i]
                for span, length, vertices, i in zip(spans, lengths, n, place, strict=True)
            ]
            sums = [0] * len(found["symbols"][0])
            for bits in itertools.product((0, 1), repeat=dims):
                weight, vertex = 1, []
                for bit, (v, f) in zip(bits, corner, strict=True):
                    weight *= f if bit else 4096 - f
                    vertex.append(v + bit)
                row = found["symbols"][first + level.entry(vertex)]
                sums = [total + weight * q for total, q in zip(sums, row, strict=True)]
            unit = 4096 ** (dims - 1)
            x += [(2 * total + unit) // (2 * unit) for total in sums]
            first += t
        result[place] = channels(found, x)
    return result


def channels(found, x):
    weights, largest = found["weights"], 2 ** found["head"]["architecture"]["bits"] - 1
    for index in range(len(weights) // 2):
        weight, bias = (weights[f"mlp.{index}.{part}"] for part in ("weight", "bias"))
        rows, columns = weight["shape"]
        y = []
        for j in range(rows):
            row = weight["values"][j * columns : (j + 1) * columns]
            step = weight["steps"][j if len(weight["steps"]) > 1 else 0]
            shift = bias["steps"][j if len(bias["steps"]) > 1 else 0]
            total = sum(k * v for k, v in zip(row, x, strict=True))
            y.append(float(total) * step + bias["values"][j] * shift * 4096)
        x = [min(max(math.floor(v + 0.5), 0), 2**30) for v in y]
    return [min(max(math.floor(v * largest * 2.0**-12 + 0.5), 0), largest) for v in y]
