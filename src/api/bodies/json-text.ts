/**
 * Looks at JSON before it is parsed: how deep it nests, and whether a double can hold its numbers. The text is read as
 * bytes: no part of a longer UTF-8 character looks like one of JSON's signs.
 */
import type { Readable } from 'node:stream'
import { parse, stringify } from 'lossless-json'
import { Problem } from '../../errors.ts'

/**
 * Levels of arrays and objects. Every program in the path of a job can read, print and frame this without a thought.
 */
export const maxJsonDepth = 256

const quote = 0x22
const backslash = 0x5c
const minus = 0x2d
/** An integer of so many digits is exact, and is printed as it was read. */
const safeDigits = 15

/** Follows the nesting of a text that comes in pieces. */
export class JsonDepth {
  #depth = 0
  #isInString = false
  #isEscaped = false

  /** @throws Problem json_too_deep */
  read(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (this.#isInString) {
        if (this.#isEscaped) this.#isEscaped = false
        else if (byte === backslash) this.#isEscaped = true
        else if (byte === quote) this.#isInString = false
      } else if (byte === quote) this.#isInString = true
      // [ and {, ] and }
      else if (byte === 0x5b || byte === 0x7b) {
        this.#depth += 1
        if (this.#depth > maxJsonDepth) throw new Problem('json_too_deep')
      } else if (byte === 0x5d || byte === 0x7d) this.#depth -= 1
    }
  }
}

export interface ParsedJson {
  readonly value: unknown
  /** The same with every number as it was sent; absent when `value` says all of it. To be printed with `printExact`. */
  readonly exact?: unknown
}

/**
 * @param wantsExact the numbers matter: they are passed on
 * @throws Problem json_invalid, json_too_deep
 */
export function parseJson(body: Buffer, wantsExact: boolean): ParsedJson {
  new JsonDepth().read(body)
  try {
    const text = decoder.decode(body)
    const value = JSON.parse(text) as unknown
    if (!wantsExact || hasPlainNumbers(body)) return { value }
    // Of two keys of the same name the last one counts, as in JSON.parse.
    return { value, exact: parse(text, undefined, { onDuplicateKey: ({ newValue }) => newValue }) }
  } catch (error) {
    throw new Problem('json_invalid', `The body is not valid JSON: ${(error as Error).message}.`, { cause: error })
  }
}

/** @param exact a part of ParsedJson.exact */
export const printExact = (exact: unknown): string => stringify(exact) ?? 'null'

const decoder = new TextDecoder('utf-8', { fatal: true })

/** Whether parsing and printing gives every number as it stands here. @param body valid JSON */
function hasPlainNumbers(body: Buffer): boolean {
  let isInString = false
  for (let at = 0; at < body.length; at += 1) {
    const byte = body[at] as number
    if (isInString) {
      if (byte === backslash) at += 1
      else if (byte === quote) isInString = false
    } else if (byte === quote) isInString = true
    else if (isDigit(byte) || byte === minus) {
      const start = at
      let isShort = byte !== minus
      while (at + 1 < body.length && isOfNumber(body[at + 1] as number)) {
        at += 1
        isShort &&= isDigit(body[at] as number)
      }
      if (isShort && at - start < safeDigits) continue
      const text = body.toString('latin1', start, at + 1)
      if (String(Number(text)) !== text) return false
    }
  }
  return true
}

const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39
/** Digits, + - . e E */
const isOfNumber = (byte: number): boolean =>
  isDigit(byte) || byte === 0x2b || byte === minus || byte === 0x2e || byte === 0x65 || byte === 0x45

/** Passes a JSON text on as it comes; after an error the source is left open. @throws Problem json_too_deep */
export async function* depthGuarded(source: Readable): AsyncGenerator<Uint8Array> {
  const depth = new JsonDepth()
  for await (const chunk of source.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    depth.read(chunk)
    yield chunk
  }
}
