/**
 * Lets a user's file say `import { defineHandler } from 'muster'` wherever it lies, without an installation beside it;
 * what it gets is this very Muster.
 */
import { register } from 'node:module'

/** Runs in the loader's own thread. A data URL, so that it is found from the sources and from the built files alike. */
const hooks = `
let index
export const initialize = data => { index = data.index }
export const resolve = (specifier, context, next) => specifier === 'muster' ? { url: index, shortCircuit: true } : next(specifier, context)
`

let registered = false

/** Calling twice is safe. */
export function resolveMuster(): void {
  if (registered) return
  registered = true
  const index = new URL(import.meta.url.endsWith('.ts') ? '../index.ts' : '../index.js', import.meta.url).href
  register(`data:text/javascript,${encodeURIComponent(hooks)}`, { data: { index } })
}
