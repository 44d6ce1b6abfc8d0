"""ML-KEM.Encaps_internal of FIPS 203: encapsulation with chosen randomness.

The libraries draw it themselves, which no vector can repeat. Written from FIPS 203, sections 4
to 6, for this purpose alone: it is neither fast nor constant-time.
"""

import hashlib
from functools import lru_cache

_Q = 3329
_N = 256
_PARAMETERS = {768: (3, 10, 4), 1024: (4, 11, 5)}
"""k, d_u and d_v; eta is 2 in both."""

_Poly = list[int]


@lru_cache(maxsize=256)
def encapsulate(bits: int, key: bytes, m: bytes) -> tuple[bytes, bytes]:
    """Return ``(shared secret, ciphertext)`` of algorithm 17, for ML-KEM-768 or 1024."""
    output = hashlib.sha3_512(m + hashlib.sha3_256(key).digest()).digest()
    return output[:32], _encrypt(bits, key, m, output[32:])


def _encrypt(bits: int, key: bytes, m: bytes, r: bytes) -> bytes:
    """K-PKE.Encrypt, algorithm 14."""
    k, du, dv = _PARAMETERS[bits]
    t = [_unpack(key[384 * i : 384 * (i + 1)], 12) for i in range(k)]
    rho = key[384 * k :]
    y = [_ntt(_noise(r, i)) for i in range(k)]
    e1 = [_noise(r, k + i) for i in range(k)]
    e2 = _noise(r, 2 * k)
    c1 = b""
    for i in range(k):
        u = [0] * _N
        for j in range(k):
            u = _add(u, _multiply(_uniform(rho, i, j), y[j]))
        c1 += _pack(_compress(_add(_inverse_ntt(u), e1[i]), du), du)
    v = [0] * _N
    for i in range(k):
        v = _add(v, _multiply(t[i], y[i]))
    message = [(_Q + 1) // 2 * bit for bit in _unpack(m, 1)]
    v = _add(_add(_inverse_ntt(v), e2), message)
    return c1 + _pack(_compress(v, dv), dv)


@lru_cache(maxsize=64)
def _uniform(rho: bytes, i: int, j: int) -> tuple[int, ...]:
    """SampleNTT, algorithm 7, for the entry of the transposed matrix."""
    stream = hashlib.shake_128(rho + bytes([i, j])).digest(3 * _N * 4)
    found: list[int] = []
    for start in range(0, len(stream), 3):
        a, b, c = stream[start : start + 3]
        found += [d for d in (a | (b & 15) << 8, b >> 4 | c << 4) if d < _Q]
    return tuple(found[:_N])


def _noise(r: bytes, n: int) -> _Poly:
    """SamplePolyCBD with eta = 2, algorithm 8."""
    bits = _unpack(hashlib.shake_256(r + bytes([n])).digest(128), 1)
    pairs = [bits[i] + bits[i + 1] for i in range(0, len(bits), 2)]
    return [(pairs[i] - pairs[i + 1]) % _Q for i in range(0, len(pairs), 2)]


def _reversed(i: int) -> int:
    return int(f"{i:07b}"[::-1], 2)


_ZETAS = [pow(17, _reversed(i), _Q) for i in range(128)]
_GAMMAS = [pow(17, 2 * _reversed(i) + 1, _Q) for i in range(128)]


def _ntt(poly: _Poly) -> _Poly:
    """Algorithm 9."""
    f, i, length = list(poly), 1, 128
    while length >= 2:
        for start in range(0, _N, 2 * length):
            zeta = _ZETAS[i]
            i += 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % _Q
                f[j + length] = (f[j] - t) % _Q
                f[j] = (f[j] + t) % _Q
        length //= 2
    return f


def _inverse_ntt(poly: _Poly) -> _Poly:
    """Algorithm 10."""
    f, i, length = list(poly), 127, 2
    while length <= 128:
        for start in range(0, _N, 2 * length):
            zeta = _ZETAS[i]
            i -= 1
            for j in range(start, start + length):
                t = f[j]
                f[j] = (t + f[j + length]) % _Q
                f[j + length] = zeta * (f[j + length] - t) % _Q
        length *= 2
    return [x * 3303 % _Q for x in f]


def _multiply(f: _Poly | tuple[int, ...], g: _Poly) -> _Poly:
    """MultiplyNTTs, algorithm 11."""
    h = [0] * _N
    for i, gamma in enumerate(_GAMMAS):
        a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        h[2 * i] = (a0 * b0 + a1 * b1 % _Q * gamma) % _Q
        h[2 * i + 1] = (a0 * b1 + a1 * b0) % _Q
    return h


def _add(f: _Poly, g: _Poly) -> _Poly:
    return [(a + b) % _Q for a, b in zip(f, g, strict=True)]


def _compress(f: _Poly, d: int) -> _Poly:
    """Formula 4.7: round half up of (2^d / q) x, modulo 2^d."""
    return [((x << d + 1) + _Q) // (2 * _Q) % (1 << d) for x in f]


def _pack(f: _Poly, d: int) -> bytes:
    """ByteEncode, algorithm 5: d bits of each, little-endian."""
    number = sum(x << d * i for i, x in enumerate(f))
    return number.to_bytes(len(f) * d // 8, "little")


def _unpack(data: bytes, d: int) -> _Poly:
    """ByteDecode, algorithm 6; what has 12 bits is below q in a key that was checked."""
    number = int.from_bytes(data, "little")
    return [number >> d * i & (1 << d) - 1 for i in range(len(data) * 8 // d)]
