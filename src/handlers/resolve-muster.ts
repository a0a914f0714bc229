/** Lets a file that was not bundled say `import { defineHandler } from 'muster'`, without an installation beside it. */
import { register } from 'node:module'
import { musterModuleText, musterNames, shareMuster } from './muster-module.ts'

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
