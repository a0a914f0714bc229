/** The clients of one host, in a process of their own there: does as it is told, and sends what its clients saw. */
import type { Fact } from './facts.ts'
import { HttpCaller } from './http-call.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import { Puller } from './puller.ts'
import { Putter } from './putter.ts'

const sendEveryMs = 50

let facts: Fact[] = []
const note = (fact: Fact): void => void facts.push(fact)
const send = (report: LoadReport): void => void process.send?.(report)
const sendFacts = (): void => {
  if (facts.length > 0) send({ kind: 'facts', facts })
  facts = []
}
const caller = new HttpCaller()
let putters: Putter[] = []
let pullers: Puller[] = []

const orders: { [Kind in LoadOrder['kind']]: (order: Extract<LoadOrder, { kind: Kind }>) => Promise<void> } = {
  begin: async ({
    name,
    nodeUrls,
    headers,
    putters: putterCount,
    jobsPerSecond,
    plainPullers,
    leasePullers,
    leaseMs,
  }) => {
    const base = { nodeUrls, headers, caller, note }
    putters = range(putterCount).map(
      first => new Putter({ ...base, name: `${name}-put${first}`, first, jobsPerSecond: jobsPerSecond / putterCount }),
    )
    pullers = [
      ...range(plainPullers).map(first => new Puller({ ...base, name: `${name}-pull${first}`, first })),
      ...range(leasePullers).map(first => new Puller({ ...base, name: `${name}-lease${first}`, first, leaseMs })),
    ]
  },
  pull: async () => {
    for (const puller of pullers) puller.start()
  },
  put: async () => {
    for (const putter of putters) putter.start()
  },
  stopPutting: async () => void (await Promise.all(putters.map(putter => putter.stop()))),
  end: async () => {
    await Promise.all([...putters, ...pullers].map(client => client.stop()))
    await caller.close()
  },
}

const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index)

setInterval(sendFacts, sendEveryMs)
process.on('message', async (order: LoadOrder & { id: number }) => {
  await orders[order.kind](order as never)
  sendFacts()
  send({ kind: 'done', id: order.id })
})
process.on('disconnect', () => process.exit())
