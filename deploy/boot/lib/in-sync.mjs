/**
 * Reads `muster redis status --json` on standard input; in-sync.mjs HOST ends with 0 when that host's server counts: it is the
 * primary or in sync with it, its Sentinel answers, and a failover could happen now.
 */
import { readFileSync } from 'node:fs'

const { canFailOver, hosts } = JSON.parse(readFileSync(0, 'utf8'))
const own = hosts.find(({ host }) => host === process.argv[2])
const counts = own.redis === 'primary' || own.isInSync
process.exitCode = canFailOver && counts && own.sentinelNames !== undefined ? 0 : 1
