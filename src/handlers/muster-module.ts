/**
 * What a user's file gets when it imports `muster`, wherever it lies and however it was packed: this very Muster, by way of
 * a name that all of a process shares. So an error that it throws is of the class that Muster knows.
 */
import { packageName } from '../version.ts'
import { AttemptAborted, defineHandler, FinalError } from './define-handler.ts'

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
