/**
 * A slot: the child process in which handlers run, one job after another. It is started by the agent with
 * `slot-main.js <pid of the agent> [handlers file]` and a pipe as file descriptor 3, and ends with that pipe.
 */
import { Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import { StartupError } from '../../errors.ts'
import { loadHandlers } from '../../handlers/catalogue.ts'
import { encodeFrame, FrameReader } from '../protocol/frames.ts'
import type { FromSlot, ToSlot } from '../protocol/slot-protocol.ts'
import { endWithAgent } from './end-with-agent.ts'
import { SlotOutput } from './slot-output.ts'
import { SlotRunner } from './slot-runner.ts'

const [, , agentPid, handlersFile] = process.argv
// Stacks name the user's own files and lines, not those of the bundle.
process.setSourceMapsEnabled(true)

const watchdog = new Worker(
  new URL(`./slot-watchdog${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url),
  {
    workerData: { agentPid: Number(agentPid) },
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 },
  },
)
watchdog.unref()

const pipe = new Socket({ fd: 3, readable: true, writable: true })
const output = new SlotOutput(pipe)

// The agent is gone: so is this slot, with everything that the handler started.
pipe.on('error', endWithAgent)
pipe.on('end', endWithAgent)

/** The last words before the slot ends itself: they must have left, but nothing may hold that up for long. */
const endWith = (message: FromSlot): void => {
  setTimeout(() => process.exit(1), 1000)
  pipe.write(encodeFrame(message), () => process.exit(1))
}

try {
  const handlers = await loadHandlers(handlersFile)
  const runner = new SlotRunner(handlers, output)
  const onFault = (error: unknown, origin: string): void => endWith(runner.fault(error, origin))
  process.on('uncaughtException', (error, origin) =>
    onFault(error, origin === 'unhandledRejection' ? 'unhandled rejection' : 'uncaught exception'),
  )
  output.captureConsole(runner)
  const reader = new FrameReader<ToSlot>((message, body) => runner.receive(message, body))
  pipe.on('data', chunk => reader.push(chunk))
  output.send({
    k: 'ready',
    types: [...handlers.values()].map(({ type, description, payload, isolation }) => ({
      type,
      ...(description !== undefined && { description: String(description) }),
      ...(payload !== undefined && { payload }),
      ...(isolation === 'process' && { isolation }),
    })),
  })
} catch (error) {
  const message =
    error instanceof StartupError
      ? error.message
      : `The handlers cannot be loaded: ${error instanceof Error ? error.stack : String(error)}`
  endWith({ k: 'unready', message })
}
