/** How errors get into the log: as pino has them, but without the arguments of Redis commands, which may be secrets. */
import { stdSerializers } from 'pino'

/** ioredis hangs the whole command on its errors: AUTH with its password, a job with its payload. */
export function errorForLog(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const shown = { ...stdSerializers.err(error) } as Record<string, unknown>
  delete shown.raw
  const { command } = shown as { command?: { name?: unknown } }
  if (command !== undefined) shown.command = String(command?.name ?? command)
  // Of a pipeline: one error for each of its commands.
  delete shown.previousErrors
  delete shown.lastNodeError
  return shown
}
