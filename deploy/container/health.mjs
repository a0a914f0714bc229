/** The health check of the container: a node answers; a worker, which serves nothing, is well as long as it runs. */
import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { request as secureRequest } from 'node:https'

const command = (await readFile('/proc/1/cmdline', 'utf8')).split('\0')
if (command.includes('worker')) process.exit(0)

const port = process.env.MUSTER_PORT || process.env.PORT || 5000
// Only whether it answers matters here, so that a certificate for its public name will do.
const options = { host: '127.0.0.1', port, path: '/health/live', timeout: 4000, rejectUnauthorized: false }
const ask = process.env.MUSTER_TLS_CERT_FILE ? secureRequest : request
ask(options, ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1))
  .on('timeout', () => process.exit(1))
  .on('error', () => process.exit(1))
  .end()
