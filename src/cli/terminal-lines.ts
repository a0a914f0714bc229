/** What a node prints in a terminal beside its log: a welcome, and the counts of the queues. */
import type { Logger } from 'pino'
import type { QueueCounts } from '../jobs/admin/control.ts'
import { Loop } from '../loop.ts'

/** @param needsKey true once the node asks for a key: then the commands send it */
export function welcome(url: string, needsKey: boolean): string {
  const key = needsKey ? ' -H "Authorization: Bearer $MUSTER_API_KEY"' : ''
  return `
Muster is ready at ${url}   (documentation: ${url}/docs, stop: Ctrl-C)

Try it: hash some data 1000 times, then pull the result.${needsKey ? ' MUSTER_API_KEY is a key of yours.' : ''}

  echo -n 'hello' | curl -sS${key} -X PUT '${url}/enqueue?iterations=1000' -H 'Content-Type: application/octet-stream' --data-binary @-
  curl -sS${key} -X POST '${url}/pullCompleted?top=10&waitMs=10000'
  curl -sS${key} '${url}/status'

`
}

/** In a terminal: how many jobs stand where, one line a queue, said when the numbers have changed. */
const intervalMs = 3000

/** `images: 12 waiting, 4 running, 96 succeeded (30 to collect), 1 dead`; counts of zero are left out. */
export function describeCounts(queue: string, counts: QueueCounts): string {
  const parts = [
    [counts.waiting, 'waiting'],
    [counts.delayed, 'delayed'],
    [counts.running, 'running'],
    [counts.succeeded, counts.uncollected > 0 ? `succeeded (${counts.uncollected} to collect)` : 'succeeded'],
    [counts.dead, 'dead'],
    [counts.cancelled, 'cancelled'],
  ] as const
  const said = parts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`)
  return `${queue}: ${said.length === 0 ? 'no jobs' : said.join(', ')}`
}

/** @param read the counts of every queue, by its name */
export function countsLine(read: () => Promise<ReadonlyMap<string, QueueCounts>>, log: Logger): Loop {
  const last = new Map<string, string>()
  const look = async (): Promise<void> => {
    for (const [queue, counts] of await read()) {
      const line = describeCounts(queue, counts)
      const isNews = line !== (last.get(queue) ?? `${queue}: no jobs`)
      last.set(queue, line)
      if (isNews) log.info(line)
    }
  }
  return new Loop({ name: 'counts of jobs', intervalMs, run: look, log })
}
