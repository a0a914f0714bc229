/**
 * CloudFormation: a stack is in the states that a test tells, one a look, and the last of them stays until the stack is made,
 * changed or deleted; what failed in it is told as well. A stack that is deleted takes all of its parts along.
 * Why: moto's stacks are done at once and never fail; those that it deletes leave addresses, endpoints and network interfaces.
 */
import type { Rules } from '../front.ts'
import type { IncomingCall } from '../incoming-call.ts'
import { printQuery } from '../query.ts'
import { Refusal, type Reply, xmlReply } from '../reply.ts'
import { parseXml, textOf, type XmlNode } from '../xml.ts'

export interface FailedPart {
  readonly name: string
  readonly type: string
  readonly status: string
  readonly reason: string
}

type Forward = (call: IncomingCall) => Promise<Reply>

export class Stacks {
  #states: string[] = []
  #turn: Promise<unknown> = Promise.resolve()
  /** Newest first, as CloudFormation tells them. */
  failures: readonly FailedPart[] = []
  /** Names of its alarms, which moto leaves out of its stacks. */
  alarms: readonly string[] = []
  /** What the next stack that is made goes through. */
  ofNext: { readonly states: readonly string[]; readonly failures?: readonly FailedPart[] } | undefined

  clear(): void {
    this.#states = []
    this.failures = []
    this.alarms = []
    this.ofNext = undefined
  }

  tell(...states: string[]): void {
    this.#states = states
  }

  look(): string | undefined {
    return this.#states.length > 1 ? this.#states.shift() : this.#states[0]
  }

  /** One at a time. */
  async inTurn<T>(act: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(act)
    this.#turn = mine.catch(() => undefined)
    return await mine
  }

  made(): void {
    const { states = [], failures = [] } = this.ofNext ?? {}
    this.#states = [...states]
    this.failures = failures
    this.ofNext = undefined
  }
}

const xmlns = 'http://cloudformation.amazonaws.com/doc/2010-05-15/'
const done = (action: string): Reply =>
  xmlReply(`<${action}Response xmlns="${xmlns}"><${action}Result/></${action}Response>`)

export const ofCloudFormation: Readonly<
  Record<string, (call: IncomingCall, rules: Rules, on: Forward) => Promise<Reply>>
> = {
  async DescribeStacks(call, { stacks }, forward) {
    const reply = await forward(call)
    const state = reply.outcome === 'ok' ? stacks.look() : undefined
    if (state === undefined) return reply
    const body = reply.body.toString().replace(/<StackStatus>\w+/, `<StackStatus>${state}`)
    return { ...reply, body }
  },
  async DescribeStackEvents(call, { stacks }, forward) {
    if (stacks.failures.length === 0) return await forward(call)
    const events = stacks.failures.map(
      ({ name, type, status, reason }) =>
        `<member><EventId>${name}</EventId><StackId>x</StackId><StackName>x</StackName><LogicalResourceId>${name}</LogicalResourceId><ResourceType>${type}</ResourceType><Timestamp>2026-01-01T00:00:00Z</Timestamp><ResourceStatus>${status}</ResourceStatus><ResourceStatusReason>${reason}</ResourceStatusReason></member>`,
    )
    return xmlReply(
      `<DescribeStackEventsResponse xmlns="${xmlns}"><DescribeStackEventsResult><StackEvents>${events.join('')}</StackEvents></DescribeStackEventsResult></DescribeStackEventsResponse>`,
    )
  },
  async ListStackResources(call, { stacks }, forward) {
    const reply = await forward(call)
    if (reply.outcome !== 'ok') return reply
    const alarms = stacks.alarms.map(
      name =>
        `<member><LogicalResourceId>${name}</LogicalResourceId><PhysicalResourceId>${name}</PhysicalResourceId><ResourceType>AWS::CloudWatch::Alarm</ResourceType><LastUpdatedTimestamp>2026-01-01T00:00:00Z</LastUpdatedTimestamp><ResourceStatus>CREATE_COMPLETE</ResourceStatus></member>`,
    )
    return {
      ...reply,
      body: reply.body.toString().replace('</StackResourceSummaries>', `${alarms.join('')}</StackResourceSummaries>`),
    }
  },
  async CreateStack(call, { stacks }, forward) {
    // One after the other: moto makes two stacks of one name when it is asked for both at once.
    return await stacks.inTurn(async () => {
      if (await exists(call, forward)) {
        throw new Refusal('AlreadyExistsException', `Stack [${call.params.StackName}] already exists`)
      }
      // Before it is there: somebody may look at once.
      stacks.made()
      return await forward(call)
    })
  },
  async ExecuteChangeSet(call, { stacks }, forward) {
    const reply = await forward(call)
    if (reply.outcome === 'ok') stacks.made()
    return reply
  },
  async ContinueUpdateRollback(_call, { stacks }) {
    stacks.tell('UPDATE_ROLLBACK_IN_PROGRESS', 'UPDATE_ROLLBACK_COMPLETE')
    return done('ContinueUpdateRollback')
  },
  async DeleteStack(call, rules, forward) {
    rules.stacks.made()
    const parts = await partsOf(call, rules)
    await endAll(call, rules, parts, beforeItsEnd)
    const reply = await forward(call)
    // moto stops at the VPC, whose parts it has left; the stack is gone all the same.
    if (reply.outcome !== 'DependencyViolation') return reply
    await endAll(call, rules, parts, afterItsEnd)
    return done('DeleteStack')
  },
}

async function exists(call: IncomingCall, forward: Forward): Promise<boolean> {
  const body = printQuery({ Action: 'DescribeStacks', Version: '2010-05-15', StackName: call.params.StackName ?? '' })
  const question = { ...call, action: 'DescribeStacks', request: { ...call.request, body: Buffer.from(body) } }
  return (await forward(question)).outcome === 'ok'
}

type Ends = Readonly<Record<string, (id: string, vpc: string) => Record<string, string>[]>>

const beforeItsEnd: Ends = {
  'AWS::EC2::NetworkInterface': id => [{ Action: 'DeleteNetworkInterface', NetworkInterfaceId: id }],
  'AWS::EC2::EIP': id => [{ Action: 'ReleaseAddress', PublicIp: id }],
  'AWS::EC2::VPCEndpoint': id => [{ Action: 'DeleteVpcEndpoints', 'VpcEndpointId.1': id }],
}

const afterItsEnd: Ends = {
  'AWS::EC2::InternetGateway': (id, vpc) => [
    { Action: 'DetachInternetGateway', InternetGatewayId: id, VpcId: vpc },
    { Action: 'DeleteInternetGateway', InternetGatewayId: id },
  ],
  'AWS::EC2::RouteTable': id => [{ Action: 'DeleteRouteTable', RouteTableId: id }],
  'AWS::EC2::VPC': id => [{ Action: 'DeleteVpc', VpcId: id }],
}

interface Part {
  readonly id: string
  readonly type: string
}

async function partsOf(call: IncomingCall, { ec2 }: Rules): Promise<Part[]> {
  const { StackName = '' } = call.params
  const question = { Action: 'DescribeStackResources', Version: '2010-05-15', StackName }
  const reply = await ec2.asCaller(call, question, 'cloudformation')
  if (reply.status >= 400) return []
  return members(parseXml(reply.body.toString())).map(part => ({
    id: textOf(part, 'PhysicalResourceId') ?? '',
    type: textOf(part, 'ResourceType') ?? '',
  }))
}

async function endAll(call: IncomingCall, { ec2 }: Rules, parts: readonly Part[], ends: Ends): Promise<void> {
  const vpc = parts.find(({ type }) => type === 'AWS::EC2::VPC')?.id ?? ''
  // In the order of the table: a VPC is the last.
  for (const [type, end] of Object.entries(ends)) {
    for (const { id } of parts.filter(part => part.type === type)) {
      // Gone already, when the stack is deleted again.
      for (const params of end(id, vpc)) await ec2.asAdmin(call, params).catch(() => undefined)
    }
  }
}

function members(node: XmlNode): XmlNode[] {
  return node.children.flatMap(child => (child.name === 'member' ? [child] : members(child)))
}
