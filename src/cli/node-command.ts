/** `muster node`: starts a node, shows what it does, and stops it on a signal. */
import { startNode } from '../node.ts'
import { type Settings, unknownVariables } from '../settings/settings.ts'
import { tellPerson } from '../terminal.ts'
import { makeLog } from './make-log.ts'
import { untilSignalled } from './options.ts'
import { countsLine, welcome } from './terminal-lines.ts'
import { whenRedisIsReady } from './wait-for-redis.ts'

export async function runNode(read: () => Settings): Promise<void> {
  const settings = read()
  const log = makeLog(settings)
  for (const { name, nearest } of unknownVariables(process.env))
    log.warn(
      `${name} is set but is no setting; ${nearest === undefined ? '"muster settings" lists them' : `did you mean ${nearest}?`}`,
    )
  const node = await whenRedisIsReady(() => startNode(settings, log, read), log)
  tellPerson(welcome(node.url, node.needsKey))
  const counts = countsLine(node.counts, log)
  if (process.stdout.isTTY) counts.start()
  else log.info({ url: node.url }, 'ready')
  await untilSignalled()
  tellPerson('\nStopping: what is under way is finished first. Ctrl-C again stops at once.\n')
  const forced = untilSignalled().then(() => {
    node.endNow()
    process.exit(130)
  })
  await counts.stop()
  await Promise.race([node.stop(), forced])
  process.exit(0)
}
