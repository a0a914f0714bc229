/**
 * The front: a proxy before moto that answers as EC2 does where moto does not (README.md has the list), carries out the
 * faults that a test orders, and records every call. What it has no rule for goes to moto as it came.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { Ec2Calls } from './ec2-calls.ts'
import { type Fault, type FaultOrder, Faults } from './faults.ts'
import { type IncomingCall, readCall } from './incoming-call.ts'
import type { Moto } from './moto.ts'
import type { Params } from './query.ts'
import { errorReply, Refusal, type Reply } from './reply.ts'
import { answer } from './rules/answer.ts'
import { Capacity } from './rules/capacity.ts'
import { ClientTokens } from './rules/client-tokens.ts'
import { LaunchBucket } from './rules/launch-bucket.ts'
import { Machines } from './rules/machines.ts'
import { NewInstances } from './rules/new-instances.ts'
import { Prices } from './rules/prices.ts'
import { Quotas } from './rules/quotas.ts'
import { Stacks } from './rules/stacks.ts'
import type { Credentials } from './signature.ts'

export interface RecordedCall {
  readonly service: string
  /** `RunInstances`, `GetProducts`; method and path for services without actions. */
  readonly action: string
  /** As sent in the query protocol, flat; empty for others. */
  readonly params: Params
  /** When it came, ms since the epoch. */
  readonly at: number
  /**
   * `ok`, the code of the error, or the fault: `reset`, `hang`, `lost-reply` (it was carried out); `pending` until then,
   * `gone` when the caller left meanwhile.
   */
  outcome: string
}

export interface Front {
  readonly url: string
  readonly moto: Moto
  /** All calls since the start or the last reset, in the order in which they came. */
  readonly calls: RecordedCall[]
  readonly capacity: Capacity
  readonly prices: Prices
  readonly launchBucket: LaunchBucket
  /** `newInstances.hiddenMs`: for how long a launched instance is not to be seen. */
  readonly newInstances: NewInstances
  readonly machines: Machines
  readonly quotas: Quotas
  readonly stacks: Stacks
  /** Orders a fault. @returns it, with the number of calls that it hit */
  fail(order: FaultOrder): Fault
  clearFaults(): void
  /** With IAM on: the keys of a caller whose launches the front has to rewrite, and so to sign again. */
  know(credentials: Credentials): void
  /** As new: no calls, faults, limits, set prices or tokens; moto forgets everything too. */
  reset(): Promise<void>
}

export type Rules = Pick<Front, 'moto' | 'capacity' | 'prices' | 'newInstances' | 'machines' | 'quotas' | 'stacks'> & {
  readonly ec2: Ec2Calls
  readonly tokens: ClientTokens
}

/** Starts a front; it ends with the test. */
export async function startFront(t: Pick<Test, 'teardown'>, moto: Moto): Promise<Front> {
  const faults = new Faults()
  const launchBucket = new LaunchBucket()
  const calls: RecordedCall[] = []
  const rules: Rules = {
    moto,
    ec2: new Ec2Calls(moto),
    tokens: new ClientTokens(),
    capacity: new Capacity(),
    prices: new Prices(),
    newInstances: new NewInstances(),
    machines: new Machines(),
    quotas: new Quotas(),
    stacks: new Stacks(),
  }

  const replyTo = async (call: IncomingCall): Promise<Reply> => {
    const isJson = call.target !== undefined
    try {
      launchBucket.admit(call.action)
      return await answer(call, rules)
    } catch (error) {
      if (error instanceof Refusal) return errorReply(error, isJson)
      return errorReply(new Refusal('InternalError', `The front failed: ${error}`), isJson)
    }
  }

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const call = await readCall(request)
    const { service, action, params } = call
    const record: RecordedCall = { service, action, params, at: Date.now(), outcome: 'pending' }
    calls.push(record)
    response.on('close', () => {
      if (record.outcome === 'pending') record.outcome = 'gone'
    })
    const fault = faults.next(action, params)
    if (fault === 'hang') {
      record.outcome = 'hang'
      return
    }
    if (fault === 'reset') {
      record.outcome = 'reset'
      request.socket.resetAndDestroy()
      return
    }
    if (typeof fault === 'object' && 'delayMs' in fault) await delay(fault.delayMs, undefined, { ref: false })
    const ordered = typeof fault === 'object' && 'status' in fault ? fault : undefined
    const reply =
      ordered === undefined
        ? await replyTo(call)
        : errorReply(
            new Refusal(ordered.code, ordered.message ?? ordered.code, ordered.status),
            call.target !== undefined,
          )
    if (fault === 'lose-reply') {
      record.outcome = 'lost-reply'
      request.socket.destroy()
      return
    }
    record.outcome = reply.outcome
    response.writeHead(reply.status, { 'content-type': reply.type, ...reply.headers })
    response.end(reply.body)
  }

  const server = createServer((request, response) => {
    // Only reading the request can fail here: whoever sent it went away.
    handle(request, response).catch(() => request.socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    moto,
    calls,
    capacity: rules.capacity,
    prices: rules.prices,
    launchBucket,
    newInstances: rules.newInstances,
    machines: rules.machines,
    quotas: rules.quotas,
    stacks: rules.stacks,
    fail: order => faults.add(order),
    clearFaults: () => faults.clear(),
    know: ({ accessKeyId, secretAccessKey }) => void rules.ec2.secrets.set(accessKeyId, secretAccessKey),
    async reset() {
      await moto.reset()
      calls.length = 0
      faults.clear()
      launchBucket.turnOff()
      rules.newInstances.hiddenMs = 0
      rules.ec2.secrets.clear()
      const { tokens, capacity, prices, newInstances, machines, quotas, stacks } = rules
      for (const rule of [tokens, capacity, prices, newInstances, machines, quotas, stacks]) rule.clear()
    },
  }
}
