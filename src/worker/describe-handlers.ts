/** Learns which types there are, and the schemas of their payloads, by loading the handlers in a process of their own. */
import { Slot } from './slot.ts'
import type { ProcessUser } from './slot-process.ts'
import type { HandlerDescription } from './slot-protocol.ts'

const heapMb = 256

/**
 * @param file a user's handlers; undefined: the built-in ones alone
 * @param passEnv variables that they may see besides the harmless ones
 * @param user whom they are loaded as; undefined: the user of this process
 * @throws StartupError when they cannot be loaded
 */
export async function describeHandlers(
  file: string | undefined,
  passEnv: readonly string[] = [],
  user?: ProcessUser,
): Promise<HandlerDescription[]> {
  let onDeath: () => void = () => undefined
  const died = new Promise<void>(resolve => {
    onDeath = resolve
  })
  const nothing = (): void => undefined
  const events = {
    onOutcome: nothing,
    onChange: nothing,
    onUnstarted: nothing,
    onUpdate: nothing,
    onCheckpoint: nothing,
    onDeath,
  }
  const handlersFile = file === '' ? undefined : file
  const slot = new Slot({ handlersFile, heapMb, maxBodyBytes: 0, passEnv, ...(user && { user }), events })
  try {
    return await slot.ready
  } finally {
    slot.kill()
    await died
  }
}
