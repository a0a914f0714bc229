/**
 * SHA-512 applied many times over: the chain of digests. The first hash is node:crypto's, since the data may be long;
 * the rest run in a WebAssembly kernel with the loop inside, for a call into OpenSSL costs more than the hash of 64
 * bytes.
 */
import { createHash } from 'node:crypto'
import { kernelBase64 } from './kernel.generated.ts'

/** What the kernel exports; see kernel/sha512-chain.ts. */
interface Kernel {
  readonly memory: { readonly buffer: ArrayBuffer }
  run(iterations: number): void
}

/** The part of the WebAssembly API that is used here; Node's types leave it out. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object) => { readonly exports: object }
}

const digestBytes = 64

/** One for the process, made when first needed: each instance reserves gigabytes of address space. */
let kernel: Kernel | undefined

function loadKernel(): Kernel {
  const module = new WebAssembly.Module(Buffer.from(kernelBase64, 'base64'))
  return new WebAssembly.Instance(module).exports as Kernel
}

/**
 * The state of one chain. Chains of one process may take turns: a chain is in the kernel's memory only while `advance`
 * runs.
 */
export class DigestChain {
  readonly #digest: Buffer

  /** Starts with the SHA-512 digest of `data`, that is after one iteration. */
  constructor(data: Uint8Array) {
    this.#digest = createHash('sha512').update(data).digest()
  }

  /** Applies SHA-512 `iterations` more times (0 to 2^31 - 1), without a pause: about 0.3 µs each. */
  advance(iterations: number): void {
    if (iterations === 0) return
    kernel ??= loadKernel()
    const memory = Buffer.from(kernel.memory.buffer, 0, digestBytes)
    // The kernel works on words in WebAssembly's byte order, SHA-512 is defined in the other one.
    memory.set(this.#digest)
    memory.swap64()
    kernel.run(iterations)
    memory.swap64()
    this.#digest.set(memory)
  }

  /** The digest so far, in lowercase hex. */
  toHex(): string {
    return this.#digest.toString('hex')
  }
}
