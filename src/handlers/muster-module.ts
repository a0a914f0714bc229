/** Lets a file that was not bundled say `import { defineHandler } from 'muster'`, without an installation beside it. */
import { register } from 'node:module'
import { packageName } from '../version.ts'
import { AttemptAborted, defineHandler, FinalError } from './define-handler.ts'

/** Runs in the loader's own thread. A data URL, so that it is found from the sources and from the built files alike. */
const hooks = `
let names, url
export const initialize = data => { ({ names, url } = data) }
export const resolve = (specifier, context, next) => names.includes(specifier) ? { url, shortCircuit: true } : next(specifier, context)
`

let registered = false

const dataUrl = (text: string): string => `data:text/javascript,${encodeURIComponent(text)}`

/** Calling twice is safe. */
export function resolveMuster(): void {
  shareMuster()
  if (registered) return
  registered = true
  register(dataUrl(hooks), { data: { names: musterNames, url: dataUrl(musterModuleText) } })
}

/**
 * What a user's file gets when it imports `muster`, wherever it lies and however it was packed: this very Muster, by
 * way of a name that all of a process shares. So an error that it throws is of the class that Muster knows.
 */
const shared = { AttemptAborted, defineHandler, FinalError }

/** The names that handlers import from. */
export const musterNames: readonly string[] = ['muster', packageName]

/** The text of the module. */
export const musterModuleText = `const muster = globalThis[Symbol.for('muster.handlers')]
export const { ${Object.keys(shared).join(', ')} } = muster
`

/** To be called before handlers are loaded. */
export function shareMuster(): void {
  Reflect.set(globalThis, Symbol.for('muster.handlers'), shared)
}
