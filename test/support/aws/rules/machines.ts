/**
 * What is known of the machines behind the instances: GetConsoleOutput answers what they wrote, DescribeInstances why they
 * ended; instances that are too new are left out.
 * Why: moto has no machines; each end is a user's wish to it, also the end of a Spot instance.
 */

import { type Reply, xmlReply } from '../reply.ts'
import { ec2Reply, find, itemsOf, parseXml, reprint, textOf, type XmlNode } from '../xml.ts'
import type { NewInstances } from './new-instances.ts'

export interface StateReason {
  readonly code: string
  readonly message: string
}

/** The simulator writes here, the front reads. */
export class Machines {
  readonly #consoles = new Map<string, () => string>()
  readonly #reasons = new Map<string, StateReason>()

  clear(): void {
    this.#consoles.clear()
    this.#reasons.clear()
  }

  hasConsole(instanceId: string, read: () => string): void {
    this.#consoles.set(instanceId, read)
  }

  ended(instanceId: string, reason: StateReason): void {
    this.#reasons.set(instanceId, reason)
  }

  consoleOf(instanceId: string): string {
    return this.#consoles.get(instanceId)?.() ?? ''
  }

  reasonOf(instanceId: string): StateReason | undefined {
    return this.#reasons.get(instanceId)
  }
}

export function consoleOutput(instanceId: string, machines: Machines): Reply {
  const output = Buffer.from(machines.consoleOf(instanceId)).toString('base64')
  return xmlReply(ec2Reply('GetConsoleOutput', { instanceId, timestamp: new Date().toISOString(), output }))
}

/** A reply of DescribeInstances as EC2 would have given it. */
export function describedInstances(reply: Reply, machines: Machines, newInstances: NewInstances): Reply {
  if (reply.outcome !== 'ok') return reply
  const root = parseXml(reply.body.toString())
  const reservations = find(root, 'reservationSet')
  if (reservations === undefined) return reply
  for (const reservation of reservations.children) {
    const instances = find(reservation, 'instancesSet')
    if (instances === undefined) continue
    instances.children = instances.children.filter(instance => !newInstances.isHidden(idOf(instance)))
    for (const instance of instances.children) explainEnd(instance, machines)
  }
  reservations.children = reservations.children.filter(reservation => itemsOf(reservation, 'instancesSet').length > 0)
  return { ...reply, body: reprint(root) }
}

function explainEnd(instance: XmlNode, machines: Machines): void {
  const reason = machines.reasonOf(idOf(instance))
  const shown = find(instance, 'stateReason')
  if (reason === undefined || shown === undefined || textOf(instance, 'instanceState', 'name') === 'running') return
  shown.children = [
    { name: 'code', text: reason.code, children: [] },
    { name: 'message', text: reason.message, children: [] },
  ]
}

const idOf = (instance: XmlNode): string => textOf(instance, 'instanceId') ?? ''
