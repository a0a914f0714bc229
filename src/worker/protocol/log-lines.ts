/** Limits on what one attempt may write to the log of its job: 1000 lines of 8 KiB. */

export const maxLogLines = 1000
const maxLineBytes = 8192

/** Splits text into lines, each cut to 8 KiB. */
export function toLogLines(text: string): string[] {
  return (text.endsWith('\n') ? text.slice(0, -1) : text).split('\n').map(cutLine)
}

function cutLine(line: string): string {
  if (line.length * 3 <= maxLineBytes || Buffer.byteLength(line) <= maxLineBytes) return line
  // A character that the cut splits would turn into a replacement character of three bytes.
  return `${Buffer.from(line)
    .subarray(0, maxLineBytes - 6)
    .toString()
    .replace(/\uFFFD$/, '')}…`
}

/** Characters of one message to the agent, whose header has a limit; JSON may write a character as six. */
const messageChars = 128 * 1024

/** Cuts lines into what fits into one message each. */
export function inMessages(lines: readonly string[]): string[][] {
  const messages: string[][] = []
  let chars = Number.POSITIVE_INFINITY
  for (const line of lines) {
    if (chars + line.length > messageChars) {
      messages.push([])
      chars = 0
    }
    messages.at(-1)?.push(line)
    chars += line.length
  }
  return messages
}

/** What ends a log that was over the limit. */
export const droppedNotice = (count: number): string => `… ${count} more lines dropped`
