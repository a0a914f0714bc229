/** A worker in a process of its own: `node worker-process.mjs`, settings from the environment. Prints one JSON line of log each. */
import { pino } from 'pino'
import { readSettings } from '../../dist/settings/settings.js'
import { runWorker } from '../../dist/worker/agent/run-worker.js'

process.exitCode = await runWorker({
  settings: readSettings(process.env),
  queue: 'default',
  log: pino(pino.destination({ sync: true })),
})
