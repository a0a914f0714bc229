/** The words of a text, each with how often it occurs. */
export function countWords(text: string): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const word of text.toLowerCase().match(/\p{L}+/gu) ?? []) counts[word] = (counts[word] ?? 0) + 1
  return counts
}
