/**
 * SHA-512 applied to its own digest again and again, in AssemblyScript (`npm run build:kernel` compiles it).
 *
 * The message of such a step is the 64-byte digest before it, so with its padding it always fits one block of 16 words:
 * the digest (w0 … w7), a single 1 bit (w8), zeros (w9 … w14) and the length in bits (w15). Each step starts from the
 * same constants. The digest therefore stays in eight locals from step to step and never goes through memory.
 *
 * The 80 rounds are written out, with the roles of a … h moving on by one each round instead of their values: the
 * compiler folds what is constant in the early rounds, and no index is computed. Memory holds the digest at 0, as eight
 * u64 in the byte order of WebAssembly (little-endian); the caller swaps the bytes.
 */

/** The digest before and after: 64 bytes at the start of memory. */
const DIGEST: usize = 0

@inline
function mix(h: u64, e: u64, f: u64, g: u64, word: u64): u64 {
  return h + (rotr(e, 14) ^ rotr(e, 18) ^ rotr(e, 41)) + (g ^ (e & (f ^ g))) + word
}

@inline
function fold(a: u64, b: u64, c: u64): u64 {
  return (rotr(a, 28) ^ rotr(a, 34) ^ rotr(a, 39)) + ((a & b) ^ (c & (a ^ b)))
}

/** The word of the schedule 16 rounds after `w`, from the words 1, 9 and 14 rounds after it. */
@inline
function next(w: u64, w1: u64, w9: u64, w14: u64): u64 {
  return w + (rotr(w1, 1) ^ rotr(w1, 8) ^ (w1 >> 7)) + w9 + (rotr(w14, 19) ^ rotr(w14, 61) ^ (w14 >> 6))
}

/** Replaces the digest in memory by SHA-512 applied `iterations` times to it; 0 leaves it as it is. */
export function run(iterations: i32): void {
  let h0 = load<u64>(DIGEST, 0)
  let h1 = load<u64>(DIGEST, 8)
  let h2 = load<u64>(DIGEST, 16)
  let h3 = load<u64>(DIGEST, 24)
  let h4 = load<u64>(DIGEST, 32)
  let h5 = load<u64>(DIGEST, 40)
  let h6 = load<u64>(DIGEST, 48)
  let h7 = load<u64>(DIGEST, 56)

  while (iterations-- > 0) {
    let w0 = h0
    let w1 = h1
    let w2 = h2
    let w3 = h3
    let w4 = h4
    let w5 = h5
    let w6 = h6
    let w7 = h7
    let w8: u64 = 0x8000000000000000
    let w9: u64 = 0
    let w10: u64 = 0
    let w11: u64 = 0
    let w12: u64 = 0
    let w13: u64 = 0
    let w14: u64 = 0
    let w15: u64 = 512

    let a: u64 = 0x6a09e667f3bcc908
    let b: u64 = 0xbb67ae8584caa73b
    let c: u64 = 0x3c6ef372fe94f82b
    let d: u64 = 0xa54ff53a5f1d36f1
    let e: u64 = 0x510e527fade682d1
    let f: u64 = 0x9b05688c2b3e6c1f
    let g: u64 = 0x1f83d9abfb41bd6b
    let h: u64 = 0x5be0cd19137e2179

    h = mix(h, e, f, g, w0 + 0x428a2f98d728ae22); d += h; h += fold(a, b, c)
    g = mix(g, d, e, f, w1 + 0x7137449123ef65cd); c += g; g += fold(h, a, b)
    f = mix(f, c, d, e, w2 + 0xb5c0fbcfec4d3b2f); b += f; f += fold(g, h, a)
    e = mix(e, b, c, d, w3 + 0xe9b5dba58189dbbc); a += e; e += fold(f, g, h)
    d = mix(d, a, b, c, w4 + 0x3956c25bf348b538); h += d; d += fold(e, f, g)
    c = mix(c, h, a, b, w5 + 0x59f111f1b605d019); g += c; c += fold(d, e, f)
    b = mix(b, g, h, a, w6 + 0x923f82a4af194f9b); f += b; b += fold(c, d, e)
    a = mix(a, f, g, h, w7 + 0xab1c5ed5da6d8118); e += a; a += fold(b, c, d)
    h = mix(h, e, f, g, w8 + 0xd807aa98a3030242); d += h; h += fold(a, b, c)
    g = mix(g, d, e, f, w9 + 0x12835b0145706fbe); c += g; g += fold(h, a, b)
    f = mix(f, c, d, e, w10 + 0x243185be4ee4b28c); b += f; f += fold(g, h, a)
    e = mix(e, b, c, d, w11 + 0x550c7dc3d5ffb4e2); a += e; e += fold(f, g, h)
    d = mix(d, a, b, c, w12 + 0x72be5d74f27b896f); h += d; d += fold(e, f, g)
    c = mix(c, h, a, b, w13 + 0x80deb1fe3b1696b1); g += c; c += fold(d, e, f)
    b = mix(b, g, h, a, w14 + 0x9bdc06a725c71235); f += b; b += fold(c, d, e)
    a = mix(a, f, g, h, w15 + 0xc19bf174cf692694); e += a; a += fold(b, c, d)

    w0 = next(w0, w1, w9, w14); h = mix(h, e, f, g, w0 + 0xe49b69c19ef14ad2); d += h; h += fold(a, b, c)
    w1 = next(w1, w2, w10, w15); g = mix(g, d, e, f, w1 + 0xefbe4786384f25e3); c += g; g += fold(h, a, b)
    w2 = next(w2, w3, w11, w0); f = mix(f, c, d, e, w2 + 0x0fc19dc68b8cd5b5); b += f; f += fold(g, h, a)
    w3 = next(w3, w4, w12, w1); e = mix(e, b, c, d, w3 + 0x240ca1cc77ac9c65); a += e; e += fold(f, g, h)
    w4 = next(w4, w5, w13, w2); d = mix(d, a, b, c, w4 + 0x2de92c6f592b0275); h += d; d += fold(e, f, g)
    w5 = next(w5, w6, w14, w3); c = mix(c, h, a, b, w5 + 0x4a7484aa6ea6e483); g += c; c += fold(d, e, f)
    w6 = next(w6, w7, w15, w4); b = mix(b, g, h, a, w6 + 0x5cb0a9dcbd41fbd4); f += b; b += fold(c, d, e)
    w7 = next(w7, w8, w0, w5); a = mix(a, f, g, h, w7 + 0x76f988da831153b5); e += a; a += fold(b, c, d)
    w8 = next(w8, w9, w1, w6); h = mix(h, e, f, g, w8 + 0x983e5152ee66dfab); d += h; h += fold(a, b, c)
    w9 = next(w9, w10, w2, w7); g = mix(g, d, e, f, w9 + 0xa831c66d2db43210); c += g; g += fold(h, a, b)
    w10 = next(w10, w11, w3, w8); f = mix(f, c, d, e, w10 + 0xb00327c898fb213f); b += f; f += fold(g, h, a)
    w11 = next(w11, w12, w4, w9); e = mix(e, b, c, d, w11 + 0xbf597fc7beef0ee4); a += e; e += fold(f, g, h)
    w12 = next(w12, w13, w5, w10); d = mix(d, a, b, c, w12 + 0xc6e00bf33da88fc2); h += d; d += fold(e, f, g)
    w13 = next(w13, w14, w6, w11); c = mix(c, h, a, b, w13 + 0xd5a79147930aa725); g += c; c += fold(d, e, f)
    w14 = next(w14, w15, w7, w12); b = mix(b, g, h, a, w14 + 0x06ca6351e003826f); f += b; b += fold(c, d, e)
    w15 = next(w15, w0, w8, w13); a = mix(a, f, g, h, w15 + 0x142929670a0e6e70); e += a; a += fold(b, c, d)

    w0 = next(w0, w1, w9, w14); h = mix(h, e, f, g, w0 + 0x27b70a8546d22ffc); d += h; h += fold(a, b, c)
    w1 = next(w1, w2, w10, w15); g = mix(g, d, e, f, w1 + 0x2e1b21385c26c926); c += g; g += fold(h, a, b)
    w2 = next(w2, w3, w11, w0); f = mix(f, c, d, e, w2 + 0x4d2c6dfc5ac42aed); b += f; f += fold(g, h, a)
    w3 = next(w3, w4, w12, w1); e = mix(e, b, c, d, w3 + 0x53380d139d95b3df); a += e; e += fold(f, g, h)
    w4 = next(w4, w5, w13, w2); d = mix(d, a, b, c, w4 + 0x650a73548baf63de); h += d; d += fold(e, f, g)
    w5 = next(w5, w6, w14, w3); c = mix(c, h, a, b, w5 + 0x766a0abb3c77b2a8); g += c; c += fold(d, e, f)
    w6 = next(w6, w7, w15, w4); b = mix(b, g, h, a, w6 + 0x81c2c92e47edaee6); f += b; b += fold(c, d, e)
    w7 = next(w7, w8, w0, w5); a = mix(a, f, g, h, w7 + 0x92722c851482353b); e += a; a += fold(b, c, d)
    w8 = next(w8, w9, w1, w6); h = mix(h, e, f, g, w8 + 0xa2bfe8a14cf10364); d += h; h += fold(a, b, c)
    w9 = next(w9, w10, w2, w7); g = mix(g, d, e, f, w9 + 0xa81a664bbc423001); c += g; g += fold(h, a, b)
    w10 = next(w10, w11, w3, w8); f = mix(f, c, d, e, w10 + 0xc24b8b70d0f89791); b += f; f += fold(g, h, a)
    w11 = next(w11, w12, w4, w9); e = mix(e, b, c, d, w11 + 0xc76c51a30654be30); a += e; e += fold(f, g, h)
    w12 = next(w12, w13, w5, w10); d = mix(d, a, b, c, w12 + 0xd192e819d6ef5218); h += d; d += fold(e, f, g)
    w13 = next(w13, w14, w6, w11); c = mix(c, h, a, b, w13 + 0xd69906245565a910); g += c; c += fold(d, e, f)
    w14 = next(w14, w15, w7, w12); b = mix(b, g, h, a, w14 + 0xf40e35855771202a); f += b; b += fold(c, d, e)
    w15 = next(w15, w0, w8, w13); a = mix(a, f, g, h, w15 + 0x106aa07032bbd1b8); e += a; a += fold(b, c, d)

    w0 = next(w0, w1, w9, w14); h = mix(h, e, f, g, w0 + 0x19a4c116b8d2d0c8); d += h; h += fold(a, b, c)
    w1 = next(w1, w2, w10, w15); g = mix(g, d, e, f, w1 + 0x1e376c085141ab53); c += g; g += fold(h, a, b)
    w2 = next(w2, w3, w11, w0); f = mix(f, c, d, e, w2 + 0x2748774cdf8eeb99); b += f; f += fold(g, h, a)
    w3 = next(w3, w4, w12, w1); e = mix(e, b, c, d, w3 + 0x34b0bcb5e19b48a8); a += e; e += fold(f, g, h)
    w4 = next(w4, w5, w13, w2); d = mix(d, a, b, c, w4 + 0x391c0cb3c5c95a63); h += d; d += fold(e, f, g)
    w5 = next(w5, w6, w14, w3); c = mix(c, h, a, b, w5 + 0x4ed8aa4ae3418acb); g += c; c += fold(d, e, f)
    w6 = next(w6, w7, w15, w4); b = mix(b, g, h, a, w6 + 0x5b9cca4f7763e373); f += b; b += fold(c, d, e)
    w7 = next(w7, w8, w0, w5); a = mix(a, f, g, h, w7 + 0x682e6ff3d6b2b8a3); e += a; a += fold(b, c, d)
    w8 = next(w8, w9, w1, w6); h = mix(h, e, f, g, w8 + 0x748f82ee5defb2fc); d += h; h += fold(a, b, c)
    w9 = next(w9, w10, w2, w7); g = mix(g, d, e, f, w9 + 0x78a5636f43172f60); c += g; g += fold(h, a, b)
    w10 = next(w10, w11, w3, w8); f = mix(f, c, d, e, w10 + 0x84c87814a1f0ab72); b += f; f += fold(g, h, a)
    w11 = next(w11, w12, w4, w9); e = mix(e, b, c, d, w11 + 0x8cc702081a6439ec); a += e; e += fold(f, g, h)
    w12 = next(w12, w13, w5, w10); d = mix(d, a, b, c, w12 + 0x90befffa23631e28); h += d; d += fold(e, f, g)
    w13 = next(w13, w14, w6, w11); c = mix(c, h, a, b, w13 + 0xa4506cebde82bde9); g += c; c += fold(d, e, f)
    w14 = next(w14, w15, w7, w12); b = mix(b, g, h, a, w14 + 0xbef9a3f7b2c67915); f += b; b += fold(c, d, e)
    w15 = next(w15, w0, w8, w13); a = mix(a, f, g, h, w15 + 0xc67178f2e372532b); e += a; a += fold(b, c, d)

    w0 = next(w0, w1, w9, w14); h = mix(h, e, f, g, w0 + 0xca273eceea26619c); d += h; h += fold(a, b, c)
    w1 = next(w1, w2, w10, w15); g = mix(g, d, e, f, w1 + 0xd186b8c721c0c207); c += g; g += fold(h, a, b)
    w2 = next(w2, w3, w11, w0); f = mix(f, c, d, e, w2 + 0xeada7dd6cde0eb1e); b += f; f += fold(g, h, a)
    w3 = next(w3, w4, w12, w1); e = mix(e, b, c, d, w3 + 0xf57d4f7fee6ed178); a += e; e += fold(f, g, h)
    w4 = next(w4, w5, w13, w2); d = mix(d, a, b, c, w4 + 0x06f067aa72176fba); h += d; d += fold(e, f, g)
    w5 = next(w5, w6, w14, w3); c = mix(c, h, a, b, w5 + 0x0a637dc5a2c898a6); g += c; c += fold(d, e, f)
    w6 = next(w6, w7, w15, w4); b = mix(b, g, h, a, w6 + 0x113f9804bef90dae); f += b; b += fold(c, d, e)
    w7 = next(w7, w8, w0, w5); a = mix(a, f, g, h, w7 + 0x1b710b35131c471b); e += a; a += fold(b, c, d)
    w8 = next(w8, w9, w1, w6); h = mix(h, e, f, g, w8 + 0x28db77f523047d84); d += h; h += fold(a, b, c)
    w9 = next(w9, w10, w2, w7); g = mix(g, d, e, f, w9 + 0x32caab7b40c72493); c += g; g += fold(h, a, b)
    w10 = next(w10, w11, w3, w8); f = mix(f, c, d, e, w10 + 0x3c9ebe0a15c9bebc); b += f; f += fold(g, h, a)
    w11 = next(w11, w12, w4, w9); e = mix(e, b, c, d, w11 + 0x431d67c49c100d4c); a += e; e += fold(f, g, h)
    w12 = next(w12, w13, w5, w10); d = mix(d, a, b, c, w12 + 0x4cc5d4becb3e42b6); h += d; d += fold(e, f, g)
    w13 = next(w13, w14, w6, w11); c = mix(c, h, a, b, w13 + 0x597f299cfc657e2a); g += c; c += fold(d, e, f)
    w14 = next(w14, w15, w7, w12); b = mix(b, g, h, a, w14 + 0x5fcb6fab3ad6faec); f += b; b += fold(c, d, e)
    w15 = next(w15, w0, w8, w13); a = mix(a, f, g, h, w15 + 0x6c44198c4a475817); e += a; a += fold(b, c, d)

    h0 = a + 0x6a09e667f3bcc908
    h1 = b + 0xbb67ae8584caa73b
    h2 = c + 0x3c6ef372fe94f82b
    h3 = d + 0xa54ff53a5f1d36f1
    h4 = e + 0x510e527fade682d1
    h5 = f + 0x9b05688c2b3e6c1f
    h6 = g + 0x1f83d9abfb41bd6b
    h7 = h + 0x5be0cd19137e2179
  }

  store<u64>(DIGEST, h0, 0)
  store<u64>(DIGEST, h1, 8)
  store<u64>(DIGEST, h2, 16)
  store<u64>(DIGEST, h3, 24)
  store<u64>(DIGEST, h4, 32)
  store<u64>(DIGEST, h5, 40)
  store<u64>(DIGEST, h6, 48)
  store<u64>(DIGEST, h7, 56)
}
