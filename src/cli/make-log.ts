/** The log of a command that runs on: one readable line an event for a person, JSON alone for a machine. */
import { type Logger, pino, stdSerializers } from 'pino'
import type { Settings } from '../settings/settings.ts'
import { hasColors } from '../terminal.ts'

/**
 * To standard output: in a terminal readable lines (plain with NO_COLOR), else one JSON object a line and nothing else.
 */
export function makeLog({ logLevel }: Settings): Logger {
  const options = {
    level: logLevel,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { err: errorForLog },
    formatters: { level: (label: string) => ({ level: label }) },
  }
  if (!process.stdout.isTTY || !hasPretty()) return pino(options, lossyOutput())
  const pretty = { colorize: hasColors(), ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss', singleLine: true }
  return pino({ ...options, transport: { target: 'pino-pretty', options: pretty } })
}

/** The code of a worker that a node serves comes without it. */
function hasPretty(): boolean {
  try {
    return import.meta.resolve('pino-pretty') !== ''
  } catch {
    return false
  }
}

/** A log that cannot be written is kept up to here. */
const keptLogBytes = 1024 * 1024
let isLossy = false

/** Whether this process serves on when nothing takes its output. */
export const mayLoseOutput = (): boolean => isLossy

/**
 * Standard output may be a file on a full disk: lines are kept, up to a limit, and lost above it; the process goes on.
 */
function lossyOutput() {
  isLossy = true
  const output = pino.destination({ dest: 1, sync: true, maxLength: keptLogBytes })
  output.on('error', () => undefined)
  return output
}

/** For commands whose standard output is their answer: what there is to log goes beside it. */
export const makeSideLog = (): Logger =>
  pino({ level: 'warn', base: null, serializers: { err: errorForLog } }, pino.destination(2))

/** How errors get into the log: as pino has them, but without the arguments of Redis commands, which may be secrets. */

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
