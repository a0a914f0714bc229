/**
 * JSON that is passed on as it was sent. A JavaScript number is a double: 1970670598291982290, 1e400 and -0 do not survive
 * parsing and printing. A text with such numbers is therefore kept as text, and put into replies as it is.
 */
import { randomUUID } from 'node:crypto'

/** Of this process: no text from outside can contain it. */
const mark = `raw-json:${randomUUID()}:`
const marked = new RegExp(`"${mark}((?:[^"\\\\]|\\\\.)*)"`, 'g')

/** Stands for its text wherever a value is printed; `unwrapRawJson` then puts the text in its place. */
export class RawJson {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  toJSON(): string {
    return mark + this.#text
  }
}

/** @param json what was printed of a value with a RawJson in it, or without */
export const unwrapRawJson = (json: string): string =>
  json.includes(mark) ? json.replace(marked, (_, escaped: string) => JSON.parse(`"${escaped}"`) as string) : json
