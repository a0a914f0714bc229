/** What a terminal is told, and how: colours only where they are wanted, words beside the answer on standard error. */
import { styleText } from 'node:util'

/** True in a terminal, unless NO_COLOR is set to anything (https://no-color.org). */
export const hasColors = (stream: { isTTY?: boolean } = process.stdout): boolean =>
  stream.isTTY === true && (process.env.NO_COLOR ?? '') === ''

export type Style = 'red' | 'green' | 'yellow' | 'dim'

/** The text in this colour where there are colours. */
export const colored = (style: Style, text: string): string => (hasColors() ? styleText(style, text) : text)

/** To standard output: the answer of a command. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** To a person: on standard output in a terminal; elsewhere on standard error, so that the output stays JSON alone. */
export function tellPerson(text: string): void {
  const stream = process.stdout.isTTY ? process.stdout : process.stderr
  stream.write(text)
}
